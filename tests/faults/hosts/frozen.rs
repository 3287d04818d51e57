//! Shows that a fleetd that was stopped for longer than its lease leaves unchanged units alone, and
//! then catches up.

use anyhow::ensure;
use lab::Lab;

use crate::support::workload::{self, SOON, active, fleetd, launch, untouched, works};

#[test]
fn fleetd_frozen_longer_than_its_lease_catches_up() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let (speaker, frozen) = (lab.host(1), lab.host(2));
        launch(speaker, "goes.service")?;
        active(lab, "goes.service", lab.hosts())?;
        let pid = fleetd(frozen)?;
        frozen.sh(&format!("kill -STOP {pid}"))?.ok()?;
        let machine = format!("{}...", &frozen.machine_id()[..8]);
        lab.wait_until(SOON, "its lease ends, and its rows go", || {
            let rows = speaker.fleetctl(&["list-units"])?.ok()?;
            let machines = speaker.fleetctl(&["list-machines"])?.ok()?;
            Ok(!rows.contains(&machine) && !machines.contains(&machine))
        })?;
        speaker.fleetctl(&["destroy", "goes.service"])?.ok()?;
        launch(speaker, "comes.service")?;
        active(lab, "comes.service", [speaker])?;
        ensure!(frozen.is_active("goes.service") && !frozen.is_active("comes.service"));
        untouched(lab, &before, "a fleetd that stands still")?;
        frozen.sh(&format!("kill -CONT {pid}"))?.ok()?;
        active(lab, "comes.service", lab.hosts())?;
        lab.wait_until(SOON, "what was destroyed meanwhile stops", || {
            Ok(!frozen.is_active("goes.service"))
        })?;
        works(lab, "after.service")?;
        untouched(lab, &before, "a fleetd that goes on")?;
        ensure!(fleetd(frozen)? == pid, "it was another fleetd that went on");
        let rows = speaker.fleetctl(&["list-units"])?.ok()?;
        ensure!(rows.contains(&machine), "{rows}");
        Ok(())
    });
}
