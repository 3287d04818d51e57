//! Shows that units run on while the registry is away, that fleet says so, and that it goes on by itself afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::workload::{self, SOON, active, fleet_journal, launch, status_text, untouched, works};

#[test]
fn a_dead_or_hanging_registry_is_named_and_stops_nothing() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let etcd = lab.member(1);
        for how in ["dead", "hanging"] {
            match how {
                "dead" => etcd.kill()?,
                _ => etcd.pause()?,
            }
            for command in [&["status"][..], &["stop", "long.service"]] {
                let asked = Instant::now();
                let said = lab.host(1).fleetctl(command)?;
                ensure!(
                    said.code == 1 && said.stderr.contains("registry"),
                    "{how}: {said:?}"
                );
                // Its request timeout is 3 s; the rest is for a machine that is busy.
                ensure!(
                    asked.elapsed() < Duration::from_secs(15),
                    "{how}: {command:?} took {:?}",
                    asked.elapsed()
                );
            }
            for host in lab.hosts() {
                lab.wait_until(
                    SOON,
                    &format!("{} says that the registry is {how}", host.name()),
                    || {
                        let why = "registry unavailable: etcd http://10.99.0.1:2379: ";
                        Ok(status_text(host)?.contains(why) && fleet_journal(host)?.contains(why))
                    },
                )?;
            }
            untouched(lab, &before, how)?;
            match how {
                "dead" => etcd.restart()?,
                _ => etcd.resume()?,
            }
            for host in lab.hosts() {
                lab.wait_until(SOON, "fleet answers again", || {
                    Ok(host.fleetctl(&["list-units"])?.code == 0)
                })?;
                lab.wait_until(SOON, "the status line is clean again", || {
                    Ok(!status_text(host)?.contains("registry"))
                })?;
            }
            works(lab, &format!("after-{how}.service"))?;
            untouched(lab, &before, how)?;
        }
        Ok(())
    });
}

#[test]
fn one_member_of_three_may_be_dead_or_hang() {
    Lab::builder().hosts(3).etcd(3).test(|lab| {
        let before = workload::start(lab)?;
        let dead = lab.member(1);
        dead.kill()?;
        works(lab, "one-dead.service")?;
        dead.restart()?;
        let leading = leading_member(lab)?;
        leading.pause()?;
        works(lab, "one-hangs.service")?;
        leading.resume()?;
        works(lab, "all-there.service")?;
        untouched(lab, &before, "the loss of one member")
    });
}

#[test]
fn a_machine_that_is_cut_off_runs_on_is_listed_no_more_and_catches_up() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let (speaker, lost) = (lab.host(1), lab.host(3));
        launch(speaker, "goes.service")?;
        active(lab, "goes.service", lab.hosts())?;
        lab.wait_until(SOON, "it is listed with its units", || {
            Ok(rows(speaker, lost)? == [true, true])
        })?;
        lost.partition()?;
        lab.wait_until(SOON, "it is listed no more, nor are its units", || {
            Ok(rows(speaker, lost)? == [false, false])
        })?;
        speaker.fleetctl(&["destroy", "goes.service"])?.ok()?;
        launch(speaker, "comes.service")?;
        active(lab, "comes.service", [speaker])?;
        ensure!(
            lost.is_active("goes.service"),
            "a machine that is cut off stopped a unit"
        );
        untouched(lab, &before, "a partition")?;
        lost.heal()?;
        lab.wait_until(SOON, "it is listed again with its units", || {
            Ok(rows(speaker, lost)? == [true, true])
        })?;
        active(lab, "comes.service", [lost])?;
        lab.wait_until(SOON, "what was destroyed meanwhile stops", || {
            Ok(!lost.is_active("goes.service"))
        })?;
        untouched(lab, &before, "a partition that healed")
    });
}

/// Whether the host has a row in list-machines, and any in list-units.
fn rows(speaker: &Host, host: &Host) -> Result<[bool; 2]> {
    let lists = |command: &str| -> Result<bool> {
        Ok(speaker
            .fleetctl(&[command, "--full", "--no-legend"])?
            .ok()?
            .contains(&host.machine_id()))
    };
    Ok([lists("list-machines")?, lists("list-units")?])
}

fn leading_member(lab: &Lab) -> Result<&lab::Member> {
    for member in lab.members() {
        if member.metrics()?.sum("etcd_server_is_leader") > 0.0 {
            return Ok(member);
        }
    }
    anyhow::bail!("no member leads")
}
