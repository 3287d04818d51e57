//! Shows that a full disk under fleet's directories is reported, affects no unit and no other host,
//! and heals.

use anyhow::Result;
use lab::{Host, Lab};

use crate::support::workload::{
    self, SOON, active, fleet_journal, launch, problems, status_text, untouched,
};

#[test]
fn a_full_disk_is_reported_and_heals() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let full = lab.host(3);
        full.sh("mkdir -p /var/lib/fleet /run/fleet && mount -t tmpfs -o size=256k,mode=700 tmpfs /var/lib/fleet && mount -t tmpfs -o size=256k tmpfs /run/fleet")?.ok()?;
        let before = workload::start(lab)?;

        fill(full, "/var/lib/fleet")?;
        launch(lab.host(1), "state-full.service")?;
        // fleetd follows the registry. Only a reboot without the registry would miss it.
        active(lab, "state-full.service", lab.hosts())?;
        told(lab, full, "desired.json")?;
        free(full, "/var/lib/fleet")?;
        clean(lab, full)?;

        fill(full, "/run/fleet")?;
        launch(lab.host(1), "run-full.service")?;
        active(lab, "run-full.service", [lab.host(1), lab.host(2)])?;
        told(lab, full, "run-full.service")?;
        lab.host(1).fleetctl(&["stop", "state-full.service"])?.ok()?;
        lab.wait_until(SOON, "a stop is followed", || Ok(!full.is_active("state-full.service")))?;
        told(lab, full, "marks.json")?;
        let pid = workload::fleetd(full)?;
        full.exec(&["systemctl", "restart", "fleet.service"])?.ok()?;
        workload::fleetd_again(lab, full, pid)?;
        told(lab, full, "run-full.service")?;
        free(full, "/run/fleet")?;
        active(lab, "run-full.service", lab.hosts())?;
        clean(lab, full)?;
        untouched(lab, &before, "a full disk")
    });
}

fn fill(host: &Host, directory: &str) -> Result<()> {
    // The second file fills the rest of the last page.
    host.sh(&format!("cat /dev/zero > {directory}/.filler; echo > {directory}/.filler2; test $(df --output=avail {directory} | tail -1) = 0"))?.ok().map(drop)
}

fn free(host: &Host, directory: &str) -> Result<()> {
    host.sh(&format!("rm {directory}/.filler {directory}/.filler2"))?
        .ok()
        .map(drop)
}

fn told(lab: &Lab, host: &Host, what: &str) -> Result<()> {
    lab.wait_until(SOON, &format!("a problem with {what} is told"), || {
        let status = lab.host(1).fleetctl(&["status"])?.stdout;
        let row = format!("{}... ", &host.machine_id()[..8]);
        let full = "No space left";
        Ok(status
            .lines()
            .any(|line| line.contains(&row) && line.contains(what) && line.contains(full))
            && status_text(host)?.contains(full)
            && fleet_journal(host)?
                .lines()
                .any(|line| line.contains(what) && line.contains(full)))
    })
}

fn clean(lab: &Lab, host: &Host) -> Result<()> {
    lab.wait_until(SOON, "nothing is wrong any more", || {
        let status = lab.host(1).fleetctl(&["status"])?.stdout;
        let row = format!("{}... ", &host.machine_id()[..8]);
        Ok(!problems(&status).iter().any(|line| line.contains(&row)))
    })
}
