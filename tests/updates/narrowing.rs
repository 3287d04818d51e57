//! Shows that a unit which matches fewer machines than before leaves them within its budget, on
//! real hosts.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};
use serde_json::Value;

use super::orders::answer;
use crate::support::looking::{SOON, sleeper};

const UNIT: &str = "x.service";
const FILE: &str = "/root/x.service";

/// How long a machine is watched before the next one follows.
const WATCHED: &str = "MaxUnavailable=1\nMinReadySec=3\n";

#[test]
fn a_unit_that_matches_fewer_machines_leaves_in_turn() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        lab.install_fleet(|host| {
            let own = format!("host={},kind=all", host.name());
            lab.fleet_conf().metadata(&own)
        })?;
        refused(lab).context("a selector that matches no machine")?;
        narrower(lab).context("a selector that matches one machine")?;
        labels(lab).context("metadata")?;
        conflicts(lab).context("Conflicts= of its own")?;
        evicted(lab).context("Conflicts= of another unit")
    });
}

fn selecting(kind: &str) -> String {
    sleeper(1000) + WATCHED + kind
}

fn submit(host: &Host, unit: &str, content: &str, options: &[&str]) -> Result<lab::Output> {
    let file = format!("/root/{unit}");
    host.write_file(&file, content)?;
    let start = [&["start", "--replace"], options, &[&file]].concat();
    host.fleetctl(&start)
}

/// Starts it on all hosts, available.
fn everywhere(lab: &Lab) -> Result<()> {
    submit(
        lab.host(1),
        UNIT,
        &selecting("MachineMetadata=kind=all\n"),
        &["--wait"],
    )?
    .ok()?;
    is_on(lab, UNIT, 3)
}

fn running(lab: &Lab, unit: &str) -> usize {
    let hosts = lab.hosts().iter();
    hosts.filter(|host| host.is_active(unit)).count()
}

fn is_on(lab: &Lab, unit: &str, hosts: usize) -> Result<()> {
    lab.wait_until(2 * SOON, &format!("{unit} runs on {hosts} hosts"), || {
        Ok(running(lab, unit) == hosts)
    })
}

/// Waits until it runs on so many hosts only, and asks for the events of it: since then each named
/// one machine, and the next one came no earlier than `MinReadySec` after it.
fn leaves_in_turn(lab: &Lab, since: usize, left: usize, why: &str) -> Result<()> {
    is_on(lab, UNIT, left)?;
    let told = narrowed(lab)?.split_off(since);
    ensure!(told.len() == 3 - left, "{told:?}");
    for event in &told {
        let machines = event["machines"].as_array().map(Vec::len);
        ensure!(machines == Some(1), "{event}");
        let reason = event["reason"].as_str().unwrap_or_default();
        ensure!(
            reason.starts_with("stops on ") && reason.contains(why),
            "{event}"
        );
    }
    for two in told.windows(2) {
        let at = |event: &Value| event["at"].as_u64().unwrap_or_default();
        // An event is dated when it is written, and decided a little earlier.
        ensure!(at(&two[1]) >= at(&two[0]) + 2_000, "{told:?}");
    }
    Ok(())
}

/// The events that say that the unit leaves machines, oldest first.
fn narrowed(lab: &Lab) -> Result<Vec<Value>> {
    let path = format!("events?unit={UNIT}");
    let told = answer(lab.host(2), "GET", &path, None, 200)?;
    let events = told["events"].as_array().context("no events")?.iter();
    let narrowed = events.filter(|event| event["kind"] == "narrowed");
    Ok(narrowed.cloned().collect())
}

fn refused(lab: &Lab) -> Result<()> {
    everywhere(lab)?;
    let typo = selecting("MachineMetadata=kind=al\n");
    let told = submit(lab.host(1), UNIT, &typo, &[])?;
    let why = "x.service would run on no machine, and stop on 3 machines (";
    ensure!(told.code == 1 && told.stderr.contains(why), "{told:?}");
    ensure!(
        told.stderr.contains("it needs kind=al, and kind=all here"),
        "{told:?}"
    );
    let planned = lab.host(1).fleetctl(&["plan", FILE])?;
    let turns = "1 machine at a time, in 3 turns: MaxUnavailable=1 of 3";
    ensure!(planned.stdout.contains(turns), "{planned:?}");
    ensure!(running(lab, UNIT) == 3, "it was refused");
    let since = narrowed(lab)?.len();
    submit(lab.host(1), UNIT, &typo, &["--force"])?.ok()?;
    leaves_in_turn(lab, since, 0, "it needs kind=al, and kind=all here")?;
    let told = lab.host(2).fleetctl(&["events", UNIT])?.ok()?;
    ensure!(told.contains("narrowed"), "{told}");
    Ok(())
}

fn narrower(lab: &Lab) -> Result<()> {
    everywhere(lab)?;
    let one = selecting("MachineMetadata=host=n1\n");
    let since = narrowed(lab)?.len();
    submit(lab.host(1), UNIT, &one, &[])?.ok()?;
    leaves_in_turn(lab, since, 1, "it needs host=n1, and host=n")?;
    ensure!(lab.host(1).is_active(UNIT));
    // A unit that is stopped waits for no turn.
    everywhere(lab)?;
    lab.host(1).fleetctl(&["destroy", UNIT])?.ok()?;
    is_on(lab, UNIT, 0)
}

fn labels(lab: &Lab) -> Result<()> {
    everywhere(lab)?;
    let set = |value: &str| {
        lab.hosts().iter().try_for_each(|host| {
            let id = host.machine_id();
            let set = lab.host(1).fleetctl(&["metadata", &id, value]);
            set?.ok().map(drop)
        })
    };
    let since = narrowed(lab)?.len();
    set("kind=oops")?;
    leaves_in_turn(lab, since, 0, "it needs kind=all, and kind=oops here")?;
    set("kind=all")?;
    is_on(lab, UNIT, 3)
}

fn conflicts(lab: &Lab) -> Result<()> {
    lab.host(1).fleetctl(&["destroy", UNIT])?.ok()?;
    submit(lab.host(1), "base.service", &sleeper(2000), &["--wait"])?.ok()?;
    everywhere(lab)?;
    let rival = selecting("MachineMetadata=kind=all\nConflicts=base*\n");
    let since = narrowed(lab)?.len();
    submit(lab.host(1), UNIT, &rival, &["--force"])?.ok()?;
    leaves_in_turn(lab, since, 0, "it conflicts with base.service")?;
    ensure!(running(lab, "base.service") == 3, "the older unit stays");
    Ok(())
}

fn evicted(lab: &Lab) -> Result<()> {
    everywhere(lab)?;
    let rival = sleeper(2000) + "Conflicts=x*\n";
    let since = narrowed(lab)?.len();
    submit(lab.host(1), "base.service", &rival, &[])?.ok()?;
    leaves_in_turn(lab, since, 0, "it conflicts with base.service")?;
    ensure!(running(lab, "base.service") == 3, "the older unit stays");
    // A unit that comes later starts where the one before it has stopped, and not earlier.
    lab.host(1).fleetctl(&["destroy", "base.service"])?.ok()?;
    is_on(lab, UNIT, 3)
}
