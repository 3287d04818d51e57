//! Shows that fleet works when one member of three is dead or hangs, and that fleetd names that
//! member.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Member};

use super::clean;
use crate::support::workload::{self, SOON, fleet_journal, leader, untouched, works};

/// The time limit until another engine leads.
const HAND_OVER: Duration = Duration::from_secs(5);

#[test]
fn etcd_member_dead_or_hanging_is_named_and_work_goes_on() {
    Lab::builder().hosts(3).etcd(3).test(|lab| {
        let before = workload::start(lab)?;
        let dead = used(lab, lab.host(1))?;
        let callers = callers(lab, dead)?;
        dead.kill()?;
        goes_on(lab, "one-dead.service", &before)?;
        named(lab, dead, &callers)?;
        dead.restart()?;
        clean(lab)?;

        let hanging = leading(lab)?;
        let callers = self::callers(lab, hanging)?;
        hanging.pause()?;
        goes_on(lab, "one-hangs.service", &before)?;
        named(lab, hanging, &callers)?;
        hanging.resume()?;
        goes_on(lab, "all-there.service", &before)
    });
}

/// Checks that a new unit reaches every host, a leader exists, every machine is listed, and no
/// other unit is affected.
fn goes_on(lab: &Lab, unit: &str, before: &[String]) -> Result<()> {
    works(lab, unit)?;
    clean(lab)?;
    // The leader's claim may end with the member that it used.
    lab.wait_until(HAND_OVER, "a host leads", || {
        Ok(leader(lab, lab.host(2)).is_ok())
    })?;
    untouched(lab, before, unit)
}

/// Waits until each of these hosts has reported that the member does not serve, and which one
/// replaces it.
fn named(lab: &Lab, member: &Member, callers: &[&Host]) -> Result<()> {
    let lost = format!("etcd {} does not serve, http://10.99.0.", member.endpoint());
    for host in callers {
        lab.wait_until(
            SOON,
            &format!("{} names {}", host.name(), member.name()),
            || Ok(fleet_journal(host)?.contains(&lost)),
        )?;
    }
    Ok(())
}

/// Returns the member that a host's fleetd uses.
fn used<'a>(lab: &'a Lab, host: &Host) -> Result<&'a Member> {
    for member in lab.members() {
        if calls(host, member)? {
            return Ok(member);
        }
    }
    anyhow::bail!("{} asks no member", host.name())
}

fn callers<'a>(lab: &'a Lab, member: &Member) -> Result<Vec<&'a Host>> {
    let mut callers = Vec::new();
    for host in lab.hosts() {
        if calls(host, member)? {
            callers.push(host);
        }
    }
    Ok(callers)
}

fn calls(host: &Host, member: &Member) -> Result<bool> {
    let peer = member.endpoint().replace("http://", "");
    let connections = host.sh("ss -Htn state established")?.ok()?;
    ensure!(connections.contains(":2379"), "{connections}");
    Ok(connections.contains(&peer))
}

fn leading(lab: &Lab) -> Result<&Member> {
    let leads = |member: &&Member| {
        let metrics = member.metrics();
        metrics.is_ok_and(|it| it.sum("etcd_server_is_leader") > 0.0)
    };
    lab.members().iter().find(leads).context("no member leads")
}
