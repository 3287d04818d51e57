//! Shows that changes made while the bus or PID 1 is unreachable arrive later. The fault is
//! reported, and no unit is affected.

use anyhow::ensure;
use lab::Lab;

use super::{clean, told};
use crate::support::workload::{self, active, fleetd, untouched};

#[test]
fn changes_without_systemd_or_bus_arrive_later() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let host = lab.host(1);
        let pid = fleetd(host)?;
        for (number, fault) in ["daemon-reexec", "restart dbus.service"].iter().enumerate() {
            let name = format!("during{number}.service");
            workload::write(host, &name, "[Service]\nExecStart=/bin/sleep infinity\n")?;
            host.sh(&format!(
                "cd /root; systemctl {fault} & fleetctl start --no-block {name}; wait"
            ))?
            .ok()?;
            active(lab, &name, [host])?;
            untouched(lab, &before, fault)?;
        }

        host.sh("systemctl stop dbus.socket dbus.service")?.ok()?;
        workload::write(
            host,
            "later.service",
            "[Service]\nExecStart=/bin/sleep infinity\n",
        )?;
        host.sh(
            "cd /root; fleetctl start --no-block later.service; fleetctl destroy during0.service",
        )?
        .ok()?;
        told(lab, host, "systemd does not answer; units run on")?;
        untouched(lab, &before, "a bus that is away")?;
        ensure!(host.is_active("during0.service"), "stopped without a bus?");
        host.sh("systemctl start dbus.socket dbus.service")?.ok()?;
        active(lab, "later.service", [host])?;
        lab.wait_until(workload::SOON, "what was destroyed meanwhile stops", || {
            Ok(!host.is_active("during0.service"))
        })?;
        clean(lab, host)?;
        untouched(lab, &before, "a bus that came back")?;
        ensure!(fleetd(host)? == pid, "fleetd did not outlive it");
        Ok(())
    });
}
