//! Shows that a unit that hangs in its stop is reported, delays no other unit, and can even be
//! started or updated.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::{TRAIL, clean, install, start, told};
use crate::support::workload::{SOON, active, works};

const STUBBORN: &str = "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nTimeoutStopSec=600\n";

#[test]
fn unit_hanging_in_its_stop_is_reported_and_can_be_updated() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        install(lab)?;
        let host = lab.host(1);
        for name in ["gone.service", "again.service", "updated.service"] {
            start(host, name, STUBBORN)?;
        }
        for name in ["gone.service", "again.service", "updated.service"] {
            active(lab, name, [host])?;
        }
        host.sh("fleetctl destroy gone.service again.service")?
            .ok()?;
        hangs(lab, host, "gone.service")?;
        hangs(lab, host, "again.service")?;
        told(
            lab,
            host,
            "it does not belong on this machine, and goes once it has stopped",
        )?;
        works(lab, "beside-hanging-stops.service")?;

        start(host, "again.service", TRAIL)?;
        start(host, "updated.service", TRAIL)?;
        hangs(lab, host, "updated.service")?;
        lab.wait_until(SOON, "the hanging stop is listed", || {
            let rows = host.fleetctl(&["list-units", "--no-legend"])?.ok()?;
            Ok(rows
                .lines()
                .any(|row| row.starts_with("updated.service") && row.contains("deactivating")))
        })?;
        for name in ["gone.service", "again.service", "updated.service"] {
            ensure!(
                host.systemctl_show(name, "ActiveState")? == "deactivating",
                "{name} was killed"
            );
            host.sh(&format!("systemctl kill --signal=KILL {name}"))?
                .ok()?;
        }
        for name in ["again.service", "updated.service"] {
            active(lab, name, [host])?;
            ensure!(
                host.read_file(&format!("/srv/{name}"))? == "ran\n",
                "{name} did not start once"
            );
        }
        lab.wait_until(SOON, "what was destroyed is gone", || {
            Ok(host.systemctl_show("gone.service", "LoadState")? == "not-found")
        })?;
        clean(lab, host)
    });
}

fn hangs(lab: &Lab, host: &Host, name: &str) -> Result<()> {
    lab.wait_until(SOON, &format!("{name} hangs in its stop"), || {
        Ok(host.systemctl_show(name, "ActiveState")? == "deactivating")
    })
}
