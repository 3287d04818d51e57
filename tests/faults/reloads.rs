//! Shows the effect of signals on fleetd. None ends it except those that ask for its end, and a
//! reload by itself affects no unit.

use anyhow::{Context as _, Result, ensure};
use lab::{Host, Lab};

use crate::support::workload::{SOON, active, fleet_journal, fleetd};

const UNIT: &str =
    "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nGlobal=true\nMachineMetadata=role=web\n";

/// The command of every unit file of fleet 1.0.
const OLD_COMMAND: &str =
    "[Service]\nExecStart=\nExecStart=/usr/bin/fleetd -config /etc/fleet/other.conf -verbosity=0\n";

#[test]
fn signals_reload_and_log_and_end_nothing() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        host.write_file("/etc/systemd/system/fleet.service.d/old.conf", OLD_COMMAND)?;
        configure(lab, host, "metadata=role=db")?;
        lab.install_fleet(|_| lab.fleet_conf())?;
        let version = host.exec(&["fleetd", "-version"])?.ok()?;
        ensure!(version.starts_with("fleetd version "), "{version}");
        host.write_file("/root/w.service", UNIT)?;
        lab.wait_until(SOON, "the unit is submitted", || {
            Ok(host.sh("fleetctl start /root/w.service")?.code == 0)
        })?;
        let daemon = fleetd(host)?;
        ensure!(!host.is_active("w.service"), "it runs without its metadata");

        configure(lab, host, "metadata=role=web\nverbosity=1\nagent_ttl=20s")?;
        host.exec(&["systemctl", "reload", "fleet.service"])?.ok()?;
        active(lab, "w.service", [host])?;
        says(lab, host, "Reloading configuration")?;
        says(
            lab,
            host,
            "needs a restart of fleetd, which touches no unit: agent_ttl",
        )?;
        let unit = host.main_pid("w.service")?;

        configure(lab, host, "metadata=role")?;
        host.exec(&["systemctl", "reload", "fleet.service"])?.ok()?;
        says(
            lab,
            host,
            "the configuration cannot be used: everything stays as it was",
        )?;
        for signal in ["USR2", "USR1", "HUP"] {
            host.exec(&["systemctl", "kill", "--signal", signal, "fleet.service"])?
                .ok()?;
        }
        says(lab, host, "agent: 1 of 1 units ready")?;
        ensure!(fleetd(host)? == daemon, "fleetd was ended");
        ensure!(host.main_pid("w.service")? == unit, "w.service was touched");
        Ok(())
    });
}

fn configure(lab: &Lab, host: &Host, lines: &str) -> Result<()> {
    host.write_file(
        "/etc/fleet/other.conf",
        format!("{}{lines}\n", lab.fleet_conf()),
    )
}

fn says(lab: &Lab, host: &Host, text: &str) -> Result<()> {
    let mut journal = String::new();
    lab.wait_until(SOON, &format!("the journal has `{text}`"), || {
        journal = fleet_journal(host)?;
        Ok(journal.contains(text))
    })
    .with_context(|| journal)
}
