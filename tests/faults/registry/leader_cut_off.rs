//! Shows that a leader that is cut off or stalls during an update, and lives, leads no more.
//! Another one continues within the budget. No decision of the old one takes effect, neither then
//! nor at its return.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::{clean, on_six_hosts, rolled_out, told, version};
use crate::support::workload::{SOON, fleet_journal, fleetd, leader, status_text};
use crate::updates::rollouts::trail::{self, Trail};
use crate::updates::rollouts::{settled, started, submit};

const UNIT: &str = "a.service";

#[test]
fn leader_cut_off_or_stalled_is_replaced_and_writes_nothing() {
    on_six_hosts(1, |lab| {
        started(lab, UNIT, &version(1))?;
        lost(lab, 2, Host::partition, Host::heal, true).context("it is cut off")?;
        // It continues in the middle of its work, still leading, with much of the registry unread.
        let signal = |host: &Host, signal: &str| {
            let pid = fleetd(host)?;
            host.sh(&format!("kill -{signal} {pid}"))?.ok().map(drop)
        };
        lost(
            lab,
            3,
            |host| signal(host, "STOP"),
            |host| signal(host, "CONT"),
            false,
        )
        .context("it stands still")
    });
}

/// Checks that another leader completes an update when the leader is lost during it, alive, and
/// returns later.
fn lost(
    lab: &Lab,
    number: u32,
    lose: impl Fn(&Host) -> Result<()>,
    find: impl Fn(&Host) -> Result<()>,
    is_awake: bool,
) -> Result<()> {
    let old = lab.host(leader(lab, lab.host(1))?);
    let here: Vec<&Host> = lab
        .hosts()
        .iter()
        .filter(|it| it.number() != old.number())
        .collect();
    let (speaker, pid) = (here[0], fleetd(old)?);
    let since = trail::now()?;
    submit(speaker, UNIT, &version(number))?;
    lab.wait_until(SOON, "a host is under way", || {
        Ok(Trail::of(lab, UNIT, since)?.went() > 0)
    })?;
    lose(old)?;
    let mut new = 0;
    lab.wait_until(SOON, "another one leads", || {
        new = leader(lab, speaker)?;
        Ok(new != old.number() && leading(here.iter().copied())? == [new])
    })?;
    if is_awake {
        // When it wakes up, its own clock shows that its claim is over.
        told(lab, old, "the registry is away; units run on as they are")?;
        ensure!(leading(lab.hosts())? == [new]);
    }
    // It may have been granted the update, so it is waited for until it is cordoned.
    let id = old.machine_id();
    speaker.fleetctl(&["cordon", &id])?.ok()?;
    settled(lab, speaker, UNIT)?;
    let claim = claim(lab)?;
    let decided = decisions(speaker)?;

    speaker.fleetctl(&["uncordon", &id])?.ok()?;
    find(old)?;
    lab.wait_until(SOON, "the old one knows that it leads no more", || {
        Ok(leading(lab.hosts())? == [new] && fleet_journal(old)?.contains("no longer leading"))
    })?;
    clean(lab)?;
    settled(lab, speaker, UNIT)?;
    lab.wait_until(SOON, "the old leader's host has had its turn", || {
        Ok(Trail::of(lab, UNIT, since)?.tried(number) == lab.hosts().len())
    })?;
    // Longer than a claim lasts, so all that the old leader had begun has ended.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(leading(lab.hosts())? == [new] && leader(lab, old)? == new);
    ensure!(self::claim(lab)? == claim, "another host led meanwhile");
    ensure!(fleetd(old)? == pid, "it was another fleetd that returned");
    let after = decisions(speaker)?;
    ensure!(after.starts_with(&decided), "{decided:?} became {after:?}");
    let takeovers = |events: &[String]| {
        let leading = events.iter().filter(|line| line.contains("  leading  "));
        leading.count()
    };
    ensure!(takeovers(&after) == takeovers(&decided), "{after:?}");

    rolled_out(&Trail::of(lab, UNIT, since)?, number)
}

/// Returns the numbers of the hosts whose fleetd reports that it leads.
fn leading<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Result<Vec<usize>> {
    let mut leading = Vec::new();
    for host in hosts {
        if status_text(host)?.contains("leading") {
            leading.push(host.number());
        }
    }
    Ok(leading)
}

/// Returns the claim in etcd, with the revision that created it.
fn claim(lab: &Lab) -> Result<String> {
    let answer = lab
        .member(1)
        .etcdctl(&["get", "--write-out=json", "/_coreos.com/fleet/leader"])?
        .ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    Ok(answer["kvs"].to_string())
}

/// Returns the decisions of leaders in their order.
fn decisions(host: &Host) -> Result<Vec<String>> {
    let events = host.fleetctl(&["events", "--full"])?.ok()?;
    Ok(events.lines().map(str::to_owned).collect())
}
