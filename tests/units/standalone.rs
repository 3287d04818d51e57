//! Shows that one machine is a fleet without etcd: `fleetd --standalone` keeps the registry over a
//! reboot, and never overwrites a damaged one.

use anyhow::{Context, Result, ensure};
use lab::{FleetConf, Host, Lab};

use crate::support::looking::{SOON, gone_everywhere, runs_everywhere, sleeper};

const REGISTRY: &str = "/var/lib/fleet/registry.json";

#[test]
fn standalone_machine_needs_no_etcd() {
    Lab::builder().test(|lab| {
        let host = lab.host(1);
        host.write_file(
            "/etc/systemd/system/fleet.service.d/standalone.conf",
            "[Service]\nExecStart=\nExecStart=/usr/bin/fleetd --standalone\n",
        )?;
        host.install_fleet(&FleetConf::new(&[]).metadata("rack=1"))?;
        start_list_stop(lab, host).context("start, list, stop")?;
        survives(lab, host, Host::reboot).context("a reboot")?;
        survives(lab, host, Host::power_on).context("a power cut")?;
        damaged(lab, host).context("a damaged registry")
    });
}

fn start_list_stop(lab: &Lab, host: &Host) -> Result<()> {
    host.write_file(
        "/root/a.service",
        sleeper(1000) + "MachineMetadata=rack=1\n",
    )?;
    host.write_file("/root/b.service", sleeper(1001))?;
    host.fleetctl(&["start", "--wait", "/root/a.service", "/root/b.service"])?
        .ok()?;
    runs_everywhere(lab, "a.service", 1000)?;
    runs_everywhere(lab, "b.service", 1001)?;
    host.fleetctl(&["stop", "b.service"])?.ok()?;
    lab.wait_until(SOON, "b.service is stopped", || {
        Ok(host.main_pid("b.service")? == 0)
    })?;
    host.write_file("/etc/fleet/units/c.service", sleeper(1002))?;
    runs_everywhere(lab, "c.service", 1002)?;
    let listed = host
        .fleetctl(&["list-machines", "--no-legend", "--fields=machine,metadata"])?
        .ok()?;
    ensure!(listed == "190c6f8f...\track=1\n", "{listed}");
    lab.wait_until(SOON, "all states are listed", || {
        let listed = host
            .fleetctl(&["list-units", "--no-legend", "--fields=unit,active"])?
            .ok()?;
        Ok(listed == "a.service\tactive\nb.service\tinactive\nc.service\tactive\n")
    })
}

fn survives(lab: &Lab, host: &Host, restart: impl Fn(&Host) -> Result<()>) -> Result<()> {
    let before = host.fleetctl(&["list-unit-files"])?.ok()?;
    restart(host)?;
    runs_everywhere(lab, "a.service", 1000)?;
    runs_everywhere(lab, "c.service", 1002)?;
    ensure!(
        host.main_pid("b.service")? == 0,
        "a stopped unit was started"
    );
    lab.wait_until(SOON, "the registry is as it was", || {
        Ok(host.fleetctl(&["list-unit-files"])?.ok()? == before)
    })
}

fn damaged(lab: &Lab, host: &Host) -> Result<()> {
    let pid = host.main_pid("a.service")?;
    host.exec(&["systemctl", "stop", "fleet.service"])?.ok()?;
    let good = host.read_file(REGISTRY)?;
    let torn = &good[..good.len() / 2];
    host.write_file(REGISTRY, torn)?;
    ensure!(
        host.exec(&["systemctl", "start", "fleet.service"])?.code != 0,
        "a damaged registry was taken"
    );
    let text = "registry file /var/lib/fleet/registry.json: damaged: ";
    ensure!(host.journal(100)?.contains(text), "{}", host.journal(100)?);
    ensure!(
        host.journal(100)?
            .contains("restore it from a backup, or move it away to start with an empty registry")
    );
    ensure!(
        host.read_file(REGISTRY)? == torn,
        "a damaged registry was overwritten"
    );
    ensure!(host.main_pid("a.service")? == pid, "a.service was touched");
    host.write_file(REGISTRY, &good)?;
    lab.wait_until(SOON, "fleetd is back by itself", || {
        Ok(host.is_active("fleet.service"))
    })?;
    ensure!(host.main_pid("a.service")? == pid, "a.service was touched");
    host.fleetctl(&["destroy", "a.service"])?.ok()?;
    gone_everywhere(lab, "a.service")
}
