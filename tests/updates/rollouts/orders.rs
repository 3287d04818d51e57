//! Orders during an update.

use anyhow::{Context, Result, ensure};
use lab::Lab;

use super::trail::{self, Trail, Unit};
use super::{
    BUDGET, HOSTS, at_once, on_twelve_hosts, order, pids, rolls_out, settled, started, submit,
    until, within_budget,
};

const UNIT: &str = "a.service";

#[test]
fn a_rollout_can_be_paused_resumed_and_undone() {
    on_twelve_hosts(1, |lab| {
        started(lab, UNIT, &Unit::version(1).file())?;
        paused_and_resumed(lab).context("pause and resume")?;
        undone_on_its_way(lab).context("undo on the way")?;
        undone_afterwards(lab).context("undo of one that is over")
    });
}

/// Starts an update on slow hosts, and waits until some have it.
fn begun(lab: &Lab, version: u32) -> Result<u64> {
    let since = trail::now()?;
    submit(
        lab.host(1),
        UNIT,
        &Unit::version(version).notifies_after(1).file(),
    )?;
    lab.wait_until(super::SOON, "a host has it", || {
        Ok(Trail::of(lab, UNIT, since)?.tried(version) > 0)
    })?;
    Ok(since)
}

fn paused_and_resumed(lab: &Lab) -> Result<()> {
    let since = begun(lab, 2)?;
    order(lab.host(4), UNIT, "pause")?;
    // Hosts that were updating finish, and no other host begins.
    until(lab, lab.host(2), UNIT, "all are up", |status| {
        let machines = status["machines"].as_array().into_iter().flatten();
        let mut arrived =
            machines.map(|it| it["granted"].is_null() || it["granted"] == it["revision"]);
        status["phase"] == "paused" && status["available"] == HOSTS && arrived.all(|it| it)
    })?;
    let trail = Trail::of(lab, UNIT, since)?;
    let had = trail.tried(2);
    ensure!(had < HOSTS, "{}", trail.most_down().1);
    let before = pids(lab, UNIT)?;
    crate::support::looking::settled(lab)?;
    ensure!(pids(lab, UNIT)? == before, "it went on");
    order(lab.host(4), UNIT, "resume")?;
    ensure!(settled(lab, lab.host(2), UNIT)? == 2);
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    super::each_moved_once(&trail, 2)
}

fn undone_on_its_way(lab: &Lab) -> Result<()> {
    let since = begun(lab, 3)?;
    order(lab.host(4), UNIT, "undo")?;
    until(lab, lab.host(2), UNIT, "it is over", |status| {
        status["phase"] == "stable" && status["available"] == HOSTS
    })?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    for (host, versions) in trail.started() {
        ensure!(
            versions.is_empty() || versions == [3, 2] || versions == [2],
            "{host}: {versions:?}"
        );
    }
    ensure!(trail.tried(3) <= 2 * BUDGET, "{}", trail.most_down().1);
    let commands = at_once(lab.hosts(), |host| {
        let pid = host.main_pid(UNIT)?;
        host.sh(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline"))?
            .ok()
    })?;
    ensure!(
        commands.iter().all(|line| line.contains(" a.service 2 ")),
        "{commands:#?}"
    );
    Ok(())
}

fn undone_afterwards(lab: &Lab) -> Result<()> {
    rolls_out(lab, UNIT, &Unit::version(4))?;
    let since = trail::now()?;
    order(lab.host(4), UNIT, "undo")?;
    settled(lab, lab.host(2), UNIT)?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    super::each_moved_once(&trail, 2)
}
