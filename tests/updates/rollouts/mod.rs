//! Shows on twelve real hosts that an update reaches them a few at a time, whatever happens
//! meanwhile.

mod absent;
mod conditions;
mod failures;
mod leaders;
mod lost;
mod orders;
mod placement;
mod soak;
pub(crate) mod trail;
mod updates;

use std::thread;

use anyhow::{Context, Result, ensure};
use lab::{FleetConf, Host, Lab};
use serde_json::{Value, json};

use self::trail::{Trail, Unit};
use crate::support::looking::SOON;
use crate::updates::orders::answer;

const HOSTS: usize = 12;

/// A quarter of the hosts: `MaxUnavailable=25%`.
const BUDGET: usize = 3;

/// The `[X-Fleet]` options of every unit here. Such a service needs a second without a restart
/// anyway.
const QUARTER: &str = "Global=true\nMaxUnavailable=25%\nMinReadySec=1\n";

/// Runs a test on twelve hosts that know each other. Their leases end soon, because hosts are lost.
fn on_twelve_hosts(members: usize, body: impl FnOnce(&Lab) -> Result<()>) {
    Lab::builder().hosts(HOSTS).etcd(members).test(|lab| {
        at_once(lab.hosts(), |host| host.install_fleet(&conf(lab)))?;
        at_once(lab.hosts(), trail::install)?;
        lab.wait_until(SOON, "all machines are listed", || {
            let listed = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
            Ok(listed.ok()?.lines().count() == HOSTS)
        })?;
        body(lab)
    });
}

fn conf(lab: &Lab) -> FleetConf {
    lab.fleet_conf().line("agent_ttl=5s")
}

/// Does the same on several hosts, each on a thread of its own.
pub(crate) fn at_once<'a, T: Send>(
    hosts: impl IntoIterator<Item = &'a Host>,
    act: impl Fn(&Host) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let act = &act;
    thread::scope(|scope| {
        let acting: Vec<_> = hosts
            .into_iter()
            .map(|host| scope.spawn(move || act(host).with_context(|| host.name().to_owned())))
            .collect();
        let done = acting.into_iter().map(|thread| thread.join());
        done.map(|done| done.expect("nothing panics")).collect()
    })
}

/// Submits a version of a unit, and does not wait for it.
pub(crate) fn submit(host: &Host, unit: &str, content: &str) -> Result<()> {
    let file = format!("/root/{unit}");
    host.write_file(&file, content)?;
    host.fleetctl(&["start", "--replace", "--no-block", &file])?
        .ok()
        .map(drop)
}

/// Starts a unit, and waits until it is available on every live host. Returns the revision.
pub(crate) fn started(lab: &Lab, unit: &str, content: &str) -> Result<u64> {
    submit(lab.host(1), unit, content)?;
    settled(lab, lab.host(1), unit)
}

/// Submits a version of a unit and waits until it is available wherever it belongs. Checks that the
/// budget held, and that every host moved once.
fn rolls_out(lab: &Lab, unit: &str, version: &Unit) -> Result<()> {
    let since = trail::now()?;
    submit(lab.host(1), unit, &version.file())?;
    settled(lab, lab.host(2), unit)?;
    let trail = Trail::of(lab, unit, since)?;
    within_budget(&trail)?;
    each_moved_once(&trail, version.number())
}

/// Waits until the unit has no active rollout and is available wherever it belongs. Returns the
/// stable revision.
pub(crate) fn settled(lab: &Lab, speaker: &Host, unit: &str) -> Result<u64> {
    let mut status = Value::Null;
    lab.wait_until(2 * SOON, &format!("no rollout of {unit} goes on"), || {
        status = rollout(speaker, unit)?;
        let all = status["desired"].clone();
        let there = status["available"] == all && status["upToDate"] == all;
        Ok(status["phase"] == "stable" && there)
    })
    .with_context(|| shown(&status))?;
    status["revision"].as_u64().context("no revision")
}

/// Waits until a rollout meets a condition. Returns its state at that moment.
fn until(
    lab: &Lab,
    speaker: &Host,
    unit: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut status = Value::Null;
    lab.wait_until(2 * SOON, &format!("{unit}: {what}"), || {
        status = rollout(speaker, unit)?;
        Ok(holds(&status))
    })
    .with_context(|| shown(&status))?;
    Ok(status)
}

pub(crate) fn rollout(host: &Host, unit: &str) -> Result<Value> {
    answer(host, "GET", &format!("rollouts/{unit}"), None, 200)
}

fn order(host: &Host, unit: &str, action: &str) -> Result<Value> {
    let body = json!({ "action": action });
    answer(host, "POST", &format!("rollouts/{unit}"), Some(&body), 200)
}

/// Gives an order that is refused, and returns the refusal.
fn refuse(host: &Host, unit: &str, order: &Value) -> Result<String> {
    let refused = answer(host, "POST", &format!("rollouts/{unit}"), Some(order), 409)?;
    Ok(refused.to_string())
}

/// Returns the main processes of a unit on all hosts.
fn pids(lab: &Lab, unit: &str) -> Result<Vec<u32>> {
    at_once(lab.hosts(), |host| host.main_pid(unit))
}

/// Checks that at no moment since then more hosts than the budget were without the unit.
fn within_budget(trail: &Trail) -> Result<()> {
    let (most, story) = trail.most_down();
    ensure!(
        most <= BUDGET,
        "{most} hosts were without it at once\n{story}"
    );
    Ok(())
}

/// Checks that every host started that version once and runs it now, and ran the version before
/// until then.
fn each_moved_once(trail: &Trail, version: u32) -> Result<()> {
    for (host, versions) in trail.started() {
        ensure!(versions == [version], "{host} ran {versions:?}");
    }
    Ok(())
}

/// Returns a rollout's state in short: its phase, and a line for each machine.
fn shown(status: &Value) -> String {
    let mut status = status.clone();
    let machines = status["machines"].take();
    let machines = machines.as_array().into_iter().flatten();
    let lines: Vec<String> = machines.map(Value::to_string).collect();
    format!("{status}\n{}", lines.join("\n"))
}
