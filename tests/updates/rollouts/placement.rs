//! Changes of a unit's placement during an update.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};
use serde_json::json;

use super::trail::{self, Trail, Unit};
use super::{
    BUDGET, HOSTS, SOON, answer, at_once, each_moved_once, on_twelve_hosts, pids, rollout, settled,
    started, submit, until, within_budget,
};

const UNIT: &str = "a.service";

#[test]
fn hosts_come_and_go_while_an_update_goes_on() {
    on_twelve_hosts(1, |lab| {
        nowhere(lab).context("a unit that belongs nowhere")?;
        started(lab, UNIT, &Unit::version(1).file())?;
        cordoned(lab).context("a cordoned host")?;
        drained(lab).context("a host is drained")?;
        labels(lab).context("labels change")
    });
}

fn schedule(lab: &Lab, host: &Host, scheduling: &str) -> Result<()> {
    let path = format!("machines/{}", host.machine_id());
    let body = json!({ "scheduling": scheduling });
    answer(lab.host(1), "POST", &path, Some(&body), 204).map(drop)
}

/// Updates the unit on hosts that take a second each, and waits until one of them has it.
fn begun(lab: &Lab, unit: &Unit) -> Result<u64> {
    let since = trail::now()?;
    submit(lab.host(1), UNIT, &unit.file())?;
    lab.wait_until(SOON, "a host has it", || {
        Ok(Trail::of(lab, UNIT, since)?.tried(unit.number()) > 0)
    })?;
    Ok(since)
}

/// Checks that an update of a unit without machines ends at once, with no machine at fault.
fn nowhere(lab: &Lab) -> Result<()> {
    const NOWHERE: &str = "nowhere.service";
    for version in [1, 2] {
        let unit = Unit::version(version).fleet("MachineMetadata=there=nowhere");
        submit(lab.host(1), NOWHERE, &unit.file())?;
        ensure!(settled(lab, lab.host(2), NOWHERE)? == u64::from(version));
    }
    let told = rollout(lab.host(1), NOWHERE)?;
    ensure!(
        told["desired"] == 0 && told["conditions"][0]["reason"] == "NoMachine",
        "{told}"
    );
    Ok(())
}

/// Checks that a cordoned host is not updated until it is uncordoned, and delays nothing.
fn cordoned(lab: &Lab) -> Result<()> {
    let host = lab.host(7);
    let before = host.main_pid(UNIT)?;
    schedule(lab, host, "cordoned")?;
    until(lab, lab.host(2), UNIT, "it is cordoned", |status| {
        status.to_string().contains("\"cordoned\"")
    })?;
    let since = trail::now()?;
    submit(lab.host(1), UNIT, &Unit::version(2).file())?;
    until(lab, lab.host(2), UNIT, "all others have it", |status| {
        status["phase"] == "stable"
            && status["upToDate"] == HOSTS - 1
            && status["available"] == HOSTS
    })?;
    ensure!(host.main_pid(UNIT)? == before, "it was updated");
    schedule(lab, host, "normal")?;
    ensure!(settled(lab, lab.host(2), UNIT)? == 2);
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    each_moved_once(&trail, 2)
}

/// Checks that a drained host stops all its units independently of the budget, and the others
/// continue.
fn drained(lab: &Lab) -> Result<()> {
    let host = lab.host(12);
    let since = begun(lab, &Unit::version(3).notifies_after(1))?;
    schedule(lab, host, "drained")?;
    lab.wait_until(SOON, "nothing runs there", || Ok(host.main_pid(UNIT)? == 0))?;
    let others: Vec<&Host> = lab.hosts().iter().filter(|it| it.number() != 12).collect();
    until(lab, lab.host(2), UNIT, "all others have it", |status| {
        let counts = ["desired", "upToDate", "available"];
        status["phase"] == "stable" && counts.iter().all(|count| status[count] == HOSTS - 1)
    })?;
    ensure!(host.main_pid(UNIT)? == 0, "it runs again");
    let trail = Trail::of(lab, UNIT, since)?.only(&others);
    within_budget(&trail)?;
    each_moved_once(&trail, 3)?;
    schedule(lab, host, "normal")?;
    until(lab, lab.host(2), UNIT, "it is back", |status| {
        status["available"] == HOSTS
    })?;
    ensure!(Trail::of(lab, UNIT, since)?.tried(3) == HOSTS);
    Ok(())
}

/// Checks that hosts that leave run nothing, and those that join run what the others run.
fn labels(lab: &Lab) -> Result<()> {
    let label = |host: &Host, change: &str| {
        let changed = lab
            .host(1)
            .fleetctl(&["metadata", &host.machine_id(), change])?;
        changed.ok().map(drop)
    };
    let (mut inside, outside): (Vec<&Host>, Vec<&Host>) =
        lab.hosts().iter().partition(|host| host.number() <= 8);
    inside.iter().try_for_each(|host| label(host, "pool=a"))?;
    let unit = |version| {
        Unit::version(version)
            .notifies_after(1)
            .fleet("MachineMetadata=pool=a")
    };
    submit(lab.host(1), UNIT, &unit(4).file())?;
    settled(lab, lab.host(2), UNIT)?;
    lab.wait_until(SOON, "it left the other hosts", || {
        let away = at_once(outside.iter().copied(), |host| host.main_pid(UNIT))?;
        Ok(away.iter().all(|pid| *pid == 0))
    })?;

    let since = begun(lab, &unit(5))?;
    label(outside[0], "pool=a")?;
    label(outside[1], "pool=a")?;
    label(inside[7], "pool-")?;
    settled(lab, lab.host(2), UNIT)?;
    lab.wait_until(SOON, "the one that left runs nothing", || {
        Ok(inside[7].main_pid(UNIT)? == 0)
    })?;
    inside.pop();
    let trail = Trail::of(lab, UNIT, since)?.only(&inside);
    // A quarter of eight to ten.
    ensure!(trail.most_down().0 < BUDGET, "{}", trail.most_down().1);
    each_moved_once(&trail, 5)?;
    let running = pids(lab, UNIT)?.into_iter().filter(|pid| *pid != 0).count();
    ensure!(running == 9, "{running} hosts run it");
    let joined = Trail::of(lab, UNIT, since)?.only(&outside[..2]);
    for (host, versions) in joined.started() {
        ensure!(versions.last() == Some(&5), "{host}: {versions:?}");
    }
    Ok(())
}
