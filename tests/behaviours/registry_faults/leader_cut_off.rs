//! Shows that a leader which is cut off in the middle of an update, and lives, leads no more: another one goes on within
//! the budget, and nothing that the old one decides lands, neither then nor at its return.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::{clean, on_six_hosts, told};
use crate::rollouts::trail::{self, Trail};
use crate::rollouts::{settled, started, submit};
use crate::workload::{SOON, fleet_journal, fleetd, leader, status_text};

const UNIT: &str = "a.service";

/// A third of the hosts.
const BUDGET: usize = 2;

fn version(number: u32) -> String {
    let unit = trail::Unit::plain(number).notifies_after(1);
    unit.fleet("Global=true\nMaxUnavailable=2").file()
}

#[test]
fn a_leader_that_is_cut_off_alive_is_followed_by_another_and_nothing_of_it_lands() {
    on_six_hosts(1, |lab| {
        started(lab, UNIT, &version(1))?;
        let old = lab.host(leader(lab, lab.host(1))?);
        let here: Vec<&Host> = lab
            .hosts()
            .iter()
            .filter(|it| it.number() != old.number())
            .collect();
        let (speaker, pid) = (here[0], fleetd(old)?);
        let since = trail::now()?;
        submit(speaker, UNIT, &version(2))?;
        lab.wait_until(SOON, "a host is under way", || {
            Ok(Trail::of(lab, UNIT, since)?.went() > 0)
        })?;
        old.partition()?;

        // Alive, it knows by its own clock that its claim is over, before anybody else may have one.
        told(lab, old, "the registry is away; units run on as they are")?;
        let mut new = 0;
        lab.wait_until(SOON, "another one leads, and the old one knows", || {
            new = leader(lab, speaker)?;
            Ok(new != old.number() && leading(lab)? == [new])
        })?;
        ensure!(fleet_journal(old)?.contains("no longer leading"));
        settled(lab, speaker, UNIT)?;
        let claim = claim(lab)?;
        let decided = decisions(speaker)?;

        old.heal()?;
        clean(lab)?;
        settled(lab, speaker, UNIT)?;
        lab.wait_until(SOON, "the old leader's host has its turn", || {
            Ok(Trail::of(lab, UNIT, since)?.tried(2) == lab.hosts().len())
        })?;
        // Longer than a claim lasts: whatever the old one had begun has come to its end.
        std::thread::sleep(Duration::from_secs(4));
        ensure!(leading(lab)? == [new] && leader(lab, old)? == new);
        ensure!(self::claim(lab)? == claim, "somebody else led meanwhile");
        ensure!(fleetd(old)? == pid, "it was another fleetd that returned");
        let after = decisions(speaker)?;
        ensure!(after.starts_with(&decided), "{decided:?} became {after:?}");
        let told = after
            .iter()
            .filter(|line| line.contains("  leading  "))
            .count();
        let before = decided
            .iter()
            .filter(|line| line.contains("  leading  "))
            .count();
        ensure!(told == before, "{after:?}");

        let trail = Trail::of(lab, UNIT, since)?;
        let (most, story) = trail.most_down();
        ensure!(
            most <= BUDGET,
            "{most} hosts were without it at once\n{story}"
        );
        for (host, versions) in trail.started() {
            ensure!(versions == [2], "{host} ran {versions:?}\n{story}");
        }
        Ok(())
    });
}

/// The numbers of the hosts whose fleetd says that it leads.
fn leading(lab: &Lab) -> Result<Vec<usize>> {
    let mut leading = Vec::new();
    for host in lab.hosts() {
        if status_text(host)?.contains("leading") {
            leading.push(host.number());
        }
    }
    Ok(leading)
}

/// The claim as etcd has it, with the revision that made it.
fn claim(lab: &Lab) -> Result<String> {
    let answer = lab
        .member(1)
        .etcdctl(&["get", "--write-out=json", "/_coreos.com/fleet/leader"])?
        .ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    Ok(answer["kvs"].to_string())
}

/// What leaders have decided, in its order.
fn decisions(host: &Host) -> Result<Vec<String>> {
    let events = host.fleetctl(&["events", "--full"])?.ok()?;
    Ok(events.lines().map(str::to_owned).collect())
}
