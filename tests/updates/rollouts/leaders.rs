//! The leader is lost at every step of a rollout, and another one continues.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::trail::{self, Trail, Unit};
use super::{
    SOON, at_once, on_twelve_hosts, rollout, settled, started, submit, until, within_budget,
};
use crate::support::workload::{fleetd, leader};

const UNIT: &str = "a.service";

#[test]
fn a_rollout_survives_its_leader_at_every_step() {
    on_twelve_hosts(3, |lab| {
        started(lab, UNIT, &Unit::version(1).file())?;
        let mut version = 1;
        for moment in ["candidate", "granted", "midway", "last"] {
            version += 1;
            good(lab, version, moment).with_context(|| format!("killed: {moment}"))?;
        }
        bad(lab, version + 1).context("killed in a rollback")?;
        power(lab, version + 2, "granted").context("switched off at the first grants")?;
        power(lab, version + 3, "midway").context("switched off midway")?;
        everybody(lab, version + 4).context("every fleetd is killed midway")
    });
}

/// Waits for a moment of a rollout, as seen on the hosts, and returns the leader's host.
fn at<'a>(lab: &'a Lab, version: u32, since: u64, moment: &str) -> Result<&'a Host> {
    let leads = lab.host(leader(lab, lab.host(1))?);
    let enough = match moment {
        "candidate" => return Ok(leads),
        "granted" => 1,
        "midway" => 5,
        _ => 12,
    };
    lab.wait_until(SOON, &format!("{enough} hosts have set out"), || {
        let trail = Trail::of(lab, UNIT, since)?;
        Ok(trail.went() >= enough || trail.tried(version) >= enough)
    })?;
    Ok(leads)
}

fn kill(host: &Host) -> Result<()> {
    host.sh(&format!("kill -KILL {}", fleetd(host)?))?
        .ok()
        .map(drop)
}

fn good(lab: &Lab, version: u32, moment: &str) -> Result<()> {
    let since = trail::now()?;
    submit(lab.host(1), UNIT, &Unit::version(version).file())?;
    kill(at(lab, version, since, moment)?)?;
    settled(lab, lab.host(12), UNIT)?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    super::each_moved_once(&trail, version)
}

fn bad(lab: &Lab, version: u32) -> Result<()> {
    let since = trail::now()?;
    let earlier = rollout(lab.host(12), UNIT)?;
    let dies = Unit::version(version)
        .then("sleep 1; exit 3")
        .fleet("MinReadySec=3");
    let leads = lab.host(leader(lab, lab.host(1))?);
    submit(lab.host(1), UNIT, &dies.file())?;
    until(lab, lab.host(12), UNIT, "goes back", |status| {
        status["phase"] == "rolling-back"
    })?;
    kill(leads)?;
    until(lab, lab.host(12), UNIT, "has gone back", |status| {
        status["phase"] == "stable" && status["last"] != earlier["last"]
    })?;
    let now = settled(lab, lab.host(12), UNIT)?;
    ensure!(Some(now) == earlier["revision"].as_u64());
    let trail = Trail::of(lab, UNIT, since)?;
    ensure!(
        trail.tried(version) <= super::BUDGET,
        "{}",
        trail.most_down().1
    );
    within_budget(&trail)
}

/// Checks that the update continues without the leader's host once it is off and cordoned. It is
/// updated when it is back.
fn power(lab: &Lab, version: u32, moment: &str) -> Result<()> {
    let since = trail::now()?;
    submit(lab.host(1), UNIT, &Unit::version(version).file())?;
    let lost = at(lab, version, since, moment)?;
    lost.power_off()?;
    let others: Vec<&Host> = lab
        .hosts()
        .iter()
        .filter(|it| it.number() != lost.number())
        .collect();
    // It may have been granted the update, so it is waited for until it is cordoned.
    let id = lost.machine_id();
    others[0].fleetctl(&["cordon", &id])?.ok()?;
    settled(lab, others[0], UNIT)?;
    within_budget(&Trail::of(lab, UNIT, since)?.only(&others))?;
    others[0].fleetctl(&["uncordon", &id])?.ok()?;
    lost.power_on()?;
    until(lab, others[0], UNIT, "it is back", |status| {
        status["desired"] == super::HOSTS
            && status["upToDate"] == super::HOSTS
            && status["available"] == super::HOSTS
    })?;
    within_budget(&Trail::of(lab, UNIT, since)?)
}

/// Kills all fleetds during an update, and checks that each continues where it was.
fn everybody(lab: &Lab, version: u32) -> Result<()> {
    let since = trail::now()?;
    submit(
        lab.host(1),
        UNIT,
        &Unit::version(version).notifies_after(1).file(),
    )?;
    at(lab, version, since, "midway")?;
    at_once(lab.hosts(), kill)?;
    lab.wait_until(SOON, "fleetd is back everywhere", || {
        Ok(at_once(lab.hosts(), fleetd)?.iter().all(|pid| *pid != 0))
    })?;
    settled(lab, lab.host(12), UNIT)?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    super::each_moved_once(&trail, version)
}
