//! Shows that fleet leaves a unit alone that an administrator stopped or masked, reports it, and
//! starts it again when asked.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::{TRAIL, clean, install, start, told};
use crate::support::workload::{SOON, active, fleetd, fleetd_again, works};

const NAME: &str = "held.service";
const MASK: &str = "/etc/systemd/system/held.service";

#[test]
fn unit_stopped_or_masked_by_hand_stays_so_and_is_reported() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        install(lab)?;
        let host = lab.host(1);
        start(host, NAME, TRAIL)?;
        active(lab, NAME, [host])?;
        let pid = host.main_pid(NAME)?;

        host.sh(&format!("systemctl mask {NAME}"))?.ok()?;
        told(
            lab,
            host,
            "somebody masked it (/etc/systemd/system/held.service)",
        )?;
        says(lab, host, "systemctl unmask held.service")?;
        works(lab, "beside-a-mask.service")?;
        ensure!(
            host.main_pid(NAME)? == pid,
            "the mask of a unit touched its process"
        );

        host.sh(&format!("systemctl stop {NAME}"))?.ok()?;
        works(lab, "beside-a-stopped-mask.service")?;
        restart_fleetd(lab, host)?;
        told(lab, host, "somebody masked it")?;
        ensure!(
            std::fs::read_link(host.path(MASK))?.as_os_str() == "/dev/null",
            "the mask was overwritten"
        );
        ensure!(!host.is_active(NAME), "a masked unit was started");

        host.sh(&format!("systemctl unmask {NAME}"))?.ok()?;
        clean(lab, host)?;
        says(
            lab,
            host,
            "stopped by hand or ended by itself, and is not started again",
        )?;
        restart_fleetd(lab, host)?;
        works(lab, "beside-a-stopped-unit.service")?;
        ensure!(
            !host.is_active(NAME),
            "what an administrator stopped was started"
        );
        ensure!(ran(host)? == 1);

        host.sh(&format!("fleetctl restart {NAME}"))?.ok()?;
        active(lab, NAME, [host])?;
        ensure!(ran(host)? == 2, "not restarted once");
        // Without this wait, a stop would count as a failure of the new revision.
        host.sh(&format!(
            "fleetctl rollout status --watch --timeout 30s {NAME}"
        ))?
        .ok()?;
        host.sh(&format!("systemctl stop {NAME}; systemctl start {NAME}"))?
            .ok()?;
        lab.wait_until(SOON, "the start by hand is seen", || {
            let status = host.fleetctl(&["status", NAME])?.stdout;
            Ok(status.contains("active (running)") && !status.contains("by hand"))
        })
    });
}

/// Waits until `fleetctl status UNIT` has that text.
fn says(lab: &Lab, host: &Host, text: &str) -> Result<()> {
    lab.wait_until(SOON, &format!("the unit's status says {text:?}"), || {
        let status = host.fleetctl(&["status", NAME])?.stdout;
        ensure!(status.contains(text), "{status}");
        Ok(true)
    })
}

fn restart_fleetd(lab: &Lab, host: &Host) -> Result<()> {
    let pid = fleetd(host)?;
    host.sh("systemctl restart fleet.service")?.ok()?;
    fleetd_again(lab, host, pid)
}

fn ran(host: &Host) -> Result<usize> {
    Ok(host.read_file(&format!("/srv/{NAME}"))?.lines().count())
}
