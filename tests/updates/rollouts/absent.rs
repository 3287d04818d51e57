//! Hosts that are offline during an update are updated when they return.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::trail::{self, Trail, Unit};
use super::{
    HOSTS, SOON, at_once, each_moved_once, on_twelve_hosts, order, pids, rollout, settled, started,
    submit, until, within_budget,
};
use crate::support::looking::refused;

const UNIT: &str = "a.service";

#[test]
fn hosts_that_missed_an_update_get_it_when_they_return() {
    on_twelve_hosts(3, |lab| {
        started(lab, UNIT, &Unit::version(1).file())?;
        cut_off(lab).context("four hosts are cut off")?;
        cut_off_midway(lab).context("four hosts are cut off midway")?;
        switched_off(lab).context("three hosts are switched off")?;
        registry_away(lab).context("the registry is away")
    });
}

/// Returns the first hosts, and the others.
fn split(lab: &Lab, away: usize) -> (Vec<&Host>, Vec<&Host>) {
    lab.hosts()
        .iter()
        .partition(|host| host.number() > HOSTS - away)
}

/// Waits until that many hosts are live, and all of them run the newest version.
fn all_have(lab: &Lab, hosts: usize) -> Result<()> {
    until(lab, lab.host(1), UNIT, "all have it", |status| {
        let counts = ["desired", "upToDate", "available"];
        status["phase"] == "stable" && counts.iter().all(|count| status[count] == hosts)
    })
    .map(drop)
}

fn missed(lab: &Lab, hosts: usize) -> Result<()> {
    until(lab, lab.host(1), UNIT, "they are missed", |status| {
        status["desired"] == HOSTS - hosts && status["deferred"] == hosts
    })
    .map(drop)
}

fn cut_off(lab: &Lab) -> Result<()> {
    let (away, here) = split(lab, 4);
    let since = trail::now()?;
    at_once(away.iter().copied(), Host::partition)?;
    missed(lab, away.len())?;
    submit(lab.host(1), UNIT, &Unit::version(2).file())?;
    settled(lab, lab.host(1), UNIT)?;
    // A quarter of eight.
    let trail = Trail::of(lab, UNIT, since)?;
    let (most, story) = trail.most_down();
    ensure!(most <= 2, "{story}");
    each_moved_once(&trail.only(&here), 2)?;
    let trail = Trail::of(lab, UNIT, since)?.only(&away);
    ensure!(trail.went() == 0, "{}", trail.most_down().1);
    at_once(away.iter().copied(), Host::heal)?;
    all_have(lab, HOSTS)?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    each_moved_once(&trail, 2)
}

/// Checks an update during which hosts are cut off. What they do meanwhile counts, and so do the
/// grants of others.
fn cut_off_midway(lab: &Lab) -> Result<()> {
    let since = trail::now()?;
    let slow = Unit::version(3).notifies_after(1);
    submit(lab.host(1), UNIT, &slow.file())?;
    lab.wait_until(SOON, "a host is under way", || {
        Ok(Trail::of(lab, UNIT, since)?.went() > 0)
    })?;
    // Grants are given in the order of ids, so the first hosts are among them.
    let away: Vec<&Host> = lab.hosts()[1..5].iter().collect();
    at_once(away.iter().copied(), Host::partition)?;
    missed(lab, away.len())?;
    at_once(away.iter().copied(), Host::heal)?;
    all_have(lab, HOSTS)?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    let last = rollout(lab.host(1), UNIT)?["last"].clone();
    if last["ended"] != "rolled-back" {
        return each_moved_once(&trail, 3);
    }
    // More hosts went offline after their grants than may be unavailable. The update may be the
    // cause.
    let why = last["reason"].as_str().unwrap_or_default();
    ensure!(why.contains("went offline when"), "{why}");
    submit(lab.host(1), UNIT, &slow.file())?;
    all_have(lab, HOSTS)
}

fn switched_off(lab: &Lab) -> Result<()> {
    let (away, here) = split(lab, 3);
    let since = trail::now()?;
    at_once(away.iter().copied(), Host::power_off)?;
    // This is before anything notices that they are gone.
    submit(lab.host(1), UNIT, &Unit::version(4).file())?;
    until(lab, lab.host(1), UNIT, "they are missed", |status| {
        status["deferred"] == away.len()
    })?;
    // Hosts that were granted it before they were missing stop the update, until a cordon removes
    // them from it.
    cordon(lab, &away, "cordon")?;
    settled(lab, lab.host(1), UNIT)?;
    let trail = Trail::of(lab, UNIT, since)?.only(&here);
    within_budget(&trail)?;
    each_moved_once(&trail, 4)?;
    at_once(away.iter().copied(), Host::power_on)?;
    cordon(lab, &away, "uncordon")?;
    all_have(lab, HOSTS)?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    for (host, versions) in trail.only(&away).started() {
        // A host that is not up yet when its turn comes is updated anyway.
        let took_its_turn = versions == [3, 4] || versions == [4];
        ensure!(took_its_turn, "{host} ran {versions:?}");
    }
    Ok(())
}

fn cordon(lab: &Lab, machines: &[&Host], verb: &str) -> Result<()> {
    machines.iter().try_for_each(|machine| {
        let id = machine.machine_id();
        lab.host(1).fleetctl(&[verb, &id])?.ok().map(drop)
    })
}

/// Checks that nothing moves, everything runs on, and fleet reports it.
fn registry_away(lab: &Lab) -> Result<()> {
    let (before, stable) = (
        pids(lab, UNIT)?,
        rollout(lab.host(1), UNIT)?["revision"].clone(),
    );
    lab.members().iter().try_for_each(|member| member.kill())?;
    let file = "/root/a.service";
    lab.host(1).write_file(file, Unit::version(5).file())?;
    let update = lab.host(1).fleetctl(&["start", "--replace", file])?;
    refused(&update, 1, "registry")?;
    ensure!(pids(lab, UNIT)? == before, "something was restarted");
    lab.members().iter().try_for_each(|member| member.start())?;
    lab.members()
        .iter()
        .try_for_each(|member| member.await_healthy())?;
    lab.wait_until(SOON, "the registry answers", || {
        Ok(rollout(lab.host(1), UNIT)?["desired"] == HOSTS)
    })?;
    ensure!(rollout(lab.host(1), UNIT)?["revision"] == stable);
    ensure!(pids(lab, UNIT)? == before, "something was restarted");
    let since = trail::now()?;
    order(lab.host(1), UNIT, "restart")?;
    all_have(lab, HOSTS)?;
    within_budget(&Trail::of(lab, UNIT, since)?)
}
