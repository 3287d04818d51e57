//! Shows that a foreign unit is never overwritten or stopped, and that other machines are not
//! affected.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::support::workload::{SOON, active, conf, launch, works};

const THEIRS: &str = "[Service]\nExecStart=/bin/sleep 4711\n";
const PATH: &str = "/etc/systemd/system/x.service";

#[test]
fn foreign_unit_of_the_same_name_is_kept_and_reported() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        lab.install_fleet(|host| conf(lab, host))?;
        let (speaker, clashes) = (lab.host(1), lab.host(3));
        clashes.write_file(PATH, THEIRS)?;
        clashes
            .sh("systemctl daemon-reload && systemctl start x.service")?
            .ok()?;
        let pid = clashes.main_pid("x.service")?;
        lab.wait_until(SOON, "a unit can be started", || {
            launch(speaker, "x.service").map(|()| true)
        })?;
        active(lab, "x.service", [speaker, lab.host(2)])?;
        told(lab, clashes)?;
        works(lab, "other.service")?;
        theirs(clashes, pid)?;

        // As long as its file exists, its process runs on. Once both are gone, the name is free.
        clashes
            .sh(&format!(
                "systemctl stop x.service; rm {PATH}; systemctl daemon-reload"
            ))?
            .ok()?;
        runs_fleets(lab, clashes)?;

        // A foreign unit that appears later takes over the name, and keeps it through fleet's own
        // stop and destroy.
        let latecomer = lab.host(2);
        latecomer.write_file(PATH, THEIRS)?;
        latecomer.exec(&["systemctl", "daemon-reload"])?.ok()?;
        told(lab, latecomer)?;
        latecomer
            .exec(&["systemctl", "restart", "x.service"])?
            .ok()?;
        let pid = latecomer.main_pid("x.service")?;
        speaker.fleetctl(&["stop", "x.service"])?.ok()?;
        lab.wait_until(SOON, "fleet's stop elsewhere", || {
            Ok(!speaker.is_active("x.service") && !clashes.is_active("x.service"))
        })?;
        theirs(latecomer, pid)?;
        speaker.fleetctl(&["destroy", "x.service"])?.ok()?;
        works(lab, "another.service")?;
        theirs(latecomer, pid)
    });
}

/// Waits until `fleetctl status` reports the clash on this host, both for the cluster and for the
/// unit.
fn told(lab: &Lab, host: &Host) -> Result<()> {
    lab.wait_until(SOON, "the clash is told", || {
        let cluster = host.fleetctl(&["status"])?.stdout;
        let row = format!("{}... x.service", &host.machine_id()[..8]);
        let unit = host.fleetctl(&["status", "x.service"])?.stdout;
        Ok(cluster
            .lines()
            .any(|line| line.contains(&row) && line.contains(PATH))
            && unit.contains(PATH))
    })
}

fn theirs(host: &Host, pid: u32) -> Result<()> {
    ensure!(host.read_file(PATH)? == THEIRS, "their file was changed");
    ensure!(
        host.main_pid("x.service")? == pid,
        "their unit was stopped or restarted"
    );
    Ok(())
}

fn runs_fleets(lab: &Lab, host: &Host) -> Result<()> {
    lab.wait_until(SOON, "fleet's own x.service runs", || {
        Ok(host.is_active("x.service")
            && host
                .systemctl_show("x.service", "ExecStart")?
                .contains("infinity"))
    })
}
