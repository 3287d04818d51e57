//! Shows that a machine without a network runs on and reports it. The others report it as missing.
//! When it returns, it carries out the orders given meanwhile.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::{clean, told};
use crate::support::workload::{
    self, SOON, active, fleet_journal, fleetd, launch, untouched, works,
};

#[test]
fn a_machine_that_is_cut_off_runs_on_is_missed_and_catches_up() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let (speaker, lost) = (lab.host(1), lab.host(3));
        for unit in ["goes.service", "stops.service"] {
            launch(speaker, unit)?;
            active(lab, unit, lab.hosts())?;
        }
        lab.wait_until(SOON, "it is listed with its units", || {
            Ok(rows(speaker, lost)? == [true, true])
        })?;
        let pid = fleetd(lost)?;
        lost.partition()?;
        lab.wait_until(SOON, "it is listed no more, nor are its units", || {
            Ok(rows(speaker, lost)? == [false, false])
        })?;
        missed(lab, speaker, lost)?;
        told(
            lab,
            lost,
            "the registry is away; units run on as they are: registry unavailable: etcd http://10.99.0.1:2379: ",
        )?;
        ensure!(fleet_journal(lost)?.contains("this machine is not visible in the registry"));

        speaker.fleetctl(&["destroy", "goes.service"])?.ok()?;
        speaker.fleetctl(&["stop", "stops.service"])?.ok()?;
        launch(speaker, "comes.service")?;
        active(lab, "comes.service", [speaker])?;
        ensure!(
            lost.is_active("goes.service") && lost.is_active("stops.service"),
            "a machine that is cut off stopped a unit"
        );
        untouched(lab, &before, "a partition")?;

        lost.heal()?;
        lab.wait_until(SOON, "it is listed again with its units", || {
            Ok(rows(speaker, lost)? == [true, true])
        })?;
        active(lab, "comes.service", [lost])?;
        lab.wait_until(SOON, "what was stopped and destroyed meanwhile stops", || {
            Ok(!lost.is_active("goes.service") && !lost.is_active("stops.service"))
        })?;
        clean(lab)?;
        lab.wait_until(SOON, "people are told that it is back", || {
            let events = speaker.fleetctl(&["events"])?.ok()?;
            let back = format!("machine-online   {}", short(lost));
            Ok(events.contains(&back))
        })?;
        ensure!(fleetd(lost)? == pid, "fleetd did not outlive it");
        works(lab, "after.service")?;
        untouched(lab, &before, "a partition that healed")
    });
}

/// Waits until fleet reports that the machine is missing, since when, and the consequence.
fn missed(lab: &Lab, speaker: &Host, lost: &Host) -> Result<()> {
    let mut seen = String::new();
    let missed = lab.wait_until(SOON, "it is missed", || {
        seen = speaker.fleetctl(&["status"])?.stdout;
        let row = format!("{}/{} since 20", short(lost), lost.address());
        Ok(seen.contains("Machines: 2\n") && seen.contains(" Offline: 1") && seen.contains(&row))
    });
    missed.map_err(|error| error.context(seen))?;
    let events = speaker.fleetctl(&["events"])?.ok()?;
    let gone = format!("machine-offline  {}: its lease ended", short(lost));
    ensure!(events.contains(&gone), "{events}");
    Ok(())
}

fn short(host: &Host) -> String {
    format!("{}...", &host.machine_id()[..8])
}

/// Returns whether the host has a row in list-machines, and any in list-units.
fn rows(speaker: &Host, host: &Host) -> Result<[bool; 2]> {
    let lists = |command: &str| -> Result<bool> {
        Ok(speaker
            .fleetctl(&[command, "--full", "--no-legend"])?
            .ok()?
            .contains(&host.machine_id()))
    };
    Ok([lists("list-machines")?, lists("list-units")?])
}
