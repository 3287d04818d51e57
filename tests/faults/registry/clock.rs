//! Shows that clocks set by an hour, back and forward, neither stop nor end an update. They are
//! those of the leader and of its successors. Events are listed in the order of the decisions.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, requirements};

use super::{clean, on_six_hosts_with, rolled_out, version};
use crate::support::workload::{SOON, fleetd, fleetd_again, leader};
use crate::updates::rollouts::trail::{self, Trail};
use crate::updates::rollouts::{settled, started, submit};

const UNIT: &str = "a.service";

/// A container cannot set a host's wall clock, but it can change what fleetd reads of it. Elapsed
/// time stays true.
const DROP_IN: &str = "[Service]\nEnvironment=LD_PRELOAD=/usr/local/lib/libfaketime.so.1\n\
    Environment=FAKETIME_TIMESTAMP_FILE=/etc/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n";

#[test]
fn clocks_set_by_an_hour_neither_stop_nor_reorder_an_update() {
    if let Err(why) = requirements::installed(requirements::TESTS) {
        return requirements::skip(&format!("{why:#}"));
    }
    on_six_hosts_with(1, with_a_clock, |lab| {
        started(lab, UNIT, &version(1))?;
        let old = lab.host(leader(lab, lab.host(1))?);
        let others = lab.hosts().iter().filter(|it| it.number() != old.number());
        let others: Vec<&Host> = others.collect();
        let speaker = others[0];
        speaker
            .sh("(fleetctl events --follow > /root/followed 2>&1 &)")?
            .ok()?;
        lab.wait_until(SOON, "the follower prints events", || {
            Ok(speaker
                .read_file("/root/followed")
                .is_ok_and(|text| text.contains("leading")))
        })?;

        rolls_out(lab, speaker, 2, || set(old, "-1h")).context("the leader's clock is set back")?;
        rolls_out(lab, speaker, 3, || {
            // The next leader is an hour behind the one before.
            set(old, "+0")?;
            others.iter().try_for_each(|host| set(host, "-1h"))?;
            let pid = fleetd(old)?;
            old.sh("systemctl restart fleet.service")?.ok()?;
            fleetd_again(lab, old, pid)
        })
        .context("the next leader's clock is an hour behind")?;
        rolls_out(lab, speaker, 4, || {
            let leads = lab.host(leader(lab, speaker)?);
            set(leads, "+1h")
        })
        .context("the leader's clock is set forward")?;
        told_in_order(lab, speaker)?;
        clean(lab)
    });
}

fn with_a_clock(host: &Host) -> Result<()> {
    host.write_file("/usr/local/lib/libfaketime.so.1", fs::read(library()?)?)?;
    host.write_file("/etc/systemd/system/fleet.service.d/clock.conf", DROP_IN)?;
    set(host, "+0")
}

/// Returns the distribution's path of the library on this machine's architecture.
fn library() -> Result<PathBuf> {
    for folder in fs::read_dir("/usr/lib")? {
        let library = folder?.path().join("faketime/libfaketimeMT.so.1");
        if library.is_file() {
            return Ok(library);
        }
    }
    anyhow::bail!("no libfaketime in /usr/lib")
}

/// Sets the clock of the host's fleetd to differ from the true one by that.
fn set(host: &Host, by: &str) -> Result<()> {
    host.write_file("/etc/clock.new", by)?;
    host.sh("mv /etc/clock.new /etc/clock")?.ok().map(drop)
}

/// Checks that a version reaches every host once, within the budget. `midway` runs once the first
/// host has begun.
fn rolls_out(
    lab: &Lab,
    speaker: &Host,
    number: u32,
    midway: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let since = trail::now()?;
    submit(speaker, UNIT, &version(number))?;
    lab.wait_until(SOON, "a host is under way", || {
        Ok(Trail::of(lab, UNIT, since)?.went() > 0)
    })?;
    midway()?;
    let revision = settled(lab, speaker, UNIT)?;
    ensure!(
        revision == u64::from(number),
        "it ended with revision {revision}"
    );
    rolled_out(&Trail::of(lab, UNIT, since)?, number)
}

/// Checks that decisions are listed in their order, whatever the clocks, and that a follower has
/// missed none.
fn told_in_order(lab: &Lab, speaker: &Host) -> Result<()> {
    let listed = speaker.fleetctl(&["events", UNIT])?.ok()?;
    let revisions: Vec<u64> = listed.lines().filter_map(revision).collect();
    ensure!(
        revisions.is_sorted() && revisions.last() == Some(&4),
        "{listed}"
    );
    let ends: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains("  promoted  "))
        .collect();
    ensure!(
        ends.len() == 3 && !listed.contains("rolling-back"),
        "{listed}"
    );
    let dates: Vec<&str> = listed.lines().filter_map(|line| line.get(..19)).collect();
    ensure!(!dates.is_sorted(), "no clock was set:\n{listed}");

    let all = speaker.fleetctl(&["events"])?.ok()?;
    lab.wait_until(
        SOON,
        "who follows has read everything, in that order",
        || {
            let followed = speaker.read_file("/root/followed")?;
            ensure!(followed == all, "followed:\n{followed}\nlisted:\n{all}");
            Ok(true)
        },
    )
}

/// Returns the number after `revision` in a line of events.
fn revision(line: &str) -> Option<u64> {
    let (_, after) = line.split_once("  revision ")?;
    after.split([' ', ':']).next()?.parse().ok()
}
