//! Checks that several behaviours share: units on hosts, keys of the registry, reported problems.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The time without a change after which the fleet counts as quiet. It is longer than reports are
/// gathered, files are spared and a registry is tried again.
const QUIET: Duration = Duration::from_millis(700);

/// Returns a global unit that runs `sleep NUMBER`, so that its process shows the revision.
pub(crate) fn sleeper(number: u32) -> String {
    format!("[Service]\nExecStart=/bin/sleep {number}\n\n[X-Fleet]\nGlobal=true\n")
}

/// Waits until every host runs `sleep NUMBER` as this unit.
pub(crate) fn runs_everywhere(lab: &Lab, unit: &str, number: u32) -> Result<()> {
    lab.wait_until(
        SOON,
        &format!("{unit} runs sleep {number} everywhere"),
        || {
            let runs = |host: &Host| {
                Ok::<_, anyhow::Error>(
                    command(host, unit)?.as_deref() == Some(&*number.to_string()),
                )
            };
            lab.hosts()
                .iter()
                .try_fold(true, |all, host| Ok(all && runs(host)?))
        },
    )
}

/// Returns the number of seconds that the unit's process sleeps. `None` if there is no process.
fn command(host: &Host, unit: &str) -> Result<Option<String>> {
    let line = host.sh(&format!(
        "pid=$(systemctl show --value --property=MainPID {unit}); [ $pid = 0 ] || tr '\\0' ' ' < /proc/$pid/cmdline"
    ))?;
    Ok(line
        .ok()?
        .trim()
        .strip_prefix("/bin/sleep ")
        .map(str::to_owned))
}

/// Waits until no host knows this unit, and no host has its file.
pub(crate) fn gone_everywhere(lab: &Lab, unit: &str) -> Result<()> {
    lab.wait_until(SOON, &format!("{unit} is gone everywhere"), || {
        lab.hosts().iter().try_fold(true, |all, host| {
            let unknown = host.systemctl_show(unit, "LoadState")? == "not-found";
            Ok(all && unknown && !host.path(&format!("/run/fleet/units/{unit}")).exists())
        })
    })
}

/// Installs fleet on the only host of a lab, and waits until it is listed.
pub(crate) fn listed(lab: &Lab) -> Result<()> {
    lab.install_fleet(|_| lab.fleet_conf())?;
    lab.wait_until(SOON, "the machine is listed", || {
        let machines = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
        Ok(machines.stdout.contains(&lab.host(1).machine_id()[..8]))
    })
}

/// The main processes of these units on every host.
pub(crate) fn main_pids(lab: &Lab, units: &[&str]) -> Result<Vec<u32>> {
    let pairs = lab
        .hosts()
        .iter()
        .flat_map(|host| units.iter().map(move |unit| (host, unit)));
    pairs.map(|(host, unit)| host.main_pid(unit)).collect()
}

/// Waits until `fleetctl status` reports a problem that contains this text, or no longer does.
pub(crate) fn told(lab: &Lab, text: &str, expected: bool) -> Result<()> {
    let host = lab.hosts().last().context("no host")?;
    let mut said = String::new();
    lab.wait_until(
        SOON,
        &format!("`fleetctl status` tells of `{text}`: {expected}"),
        || {
            let status = host.fleetctl(&["status"])?;
            // 3 means that there are problems, which are expected here.
            ensure!([0, 3].contains(&status.code), "{status:?}");
            said = status.stdout;
            Ok(said.contains(text) == expected)
        },
    )
    .with_context(|| said)
}

/// Returns the revision of the whole registry, once it no longer changes. Reports are written with
/// a short delay.
pub(crate) fn settled(lab: &Lab) -> Result<u64> {
    let (mut last, mut since) = (revision(lab)?, std::time::Instant::now());
    lab.wait_until(SOON, "nothing is written to the registry any more", || {
        let now = revision(lab)?;
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
        Ok(since.elapsed() >= QUIET)
    })?;
    Ok(last)
}

fn revision(lab: &Lab) -> Result<u64> {
    etcd_number(lab, "nothing", "/header/revision")?.context("etcd tells no revision")
}

/// Returns how often a unit's record was written since its creation. `None` while the unit does not
/// exist.
pub(crate) fn writes(lab: &Lab, unit: &str) -> Result<Option<u64>> {
    settled(lab)?;
    etcd_number(
        lab,
        &format!("/_coreos.com/fleet/units/{unit}"),
        "/kvs/0/version",
    )
}

/// Returns the store revision that created a unit. `None` while the unit does not exist. A unit
/// that was destroyed and created again has another one.
pub(crate) fn made_at(lab: &Lab, unit: &str) -> Result<Option<u64>> {
    etcd_number(
        lab,
        &format!("/_coreos.com/fleet/units/{unit}"),
        "/kvs/0/create_revision",
    )
}

fn etcd_number(lab: &Lab, key: &str, pointer: &str) -> Result<Option<u64>> {
    let answer = lab
        .member(1)
        .etcdctl(&["get", "--write-out=json", key])?
        .ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    Ok(answer.pointer(pointer).and_then(serde_json::Value::as_u64))
}

/// Checks that a command failed with this exit code, and printed this on stderr.
pub(crate) fn refused(output: &lab::Output, code: i32, text: &str) -> Result<()> {
    ensure!(
        output.code == code && output.stderr.contains(text),
        "expected exit code {code} and `{text}`: {output:?}"
    );
    Ok(())
}
