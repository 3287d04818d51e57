//! Shows that the packaged units are valid, and that their sandbox lets fleetd do its job.

use anyhow::ensure;
use lab::{Lab, repository};

/// A replacement of fleetd. It does once, inside the sandbox, all that fleetd does to the machine.
const STAND_IN: &str = r#"#!/bin/sh
set -eux
mkdir -p /run/fleet/units
printf '[Service]\nExecStart=/bin/sleep infinity\n' > /run/fleet/units/probe.service
manager='org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager'
busctl call $manager LinkUnitFiles asbb 1 /run/fleet/units/probe.service true true
busctl call $manager Reload
busctl call $manager StartUnit ss probe.service replace
echo state > /var/lib/fleet/state
echo marker > /etc/fleet/units/.marker
cat /etc/keys/foreign.key /root/own.key /proc/sys/kernel/random/boot_id > /dev/null
ip route > /dev/null
for outside in /usr/bin/file /etc/file /home/file; do
    if touch $outside; then exit 1; fi
done
if mount -t tmpfs none /mnt; then exit 1; fi
systemd-notify --ready
exec sleep infinity
"#;

#[test]
fn packaged_units_are_valid_and_little_exposed() {
    Lab::builder().test(|lab| {
        let host = lab.host(1);
        host.write_file("/usr/bin/fleetd", STAND_IN)?;
        host.sh("chmod 755 /usr/bin/fleetd")?.ok()?;
        install(host)?;
        let verified = host.sh("systemd-analyze verify --man=no fleet.service fleet.socket")?;
        ensure!(
            verified.stderr.is_empty() && verified.code == 0,
            "{verified:?}"
        );
        // In tenths. Most of the 2.3 is for running as root with the network, which the job needs.
        host.sh("systemd-analyze security --no-pager --offline=yes --threshold=23 fleet.service")?
            .ok()?;
        Ok(())
    });
}

#[test]
fn fleetd_can_do_its_job_inside_the_fence_and_nothing_beside_it() {
    Lab::builder().test(|lab| {
        let host = lab.host(1);
        host.write_file("/usr/bin/fleetd", STAND_IN)?;
        host.write_file("/root/own.key", "")?;
        host.write_file("/etc/keys/foreign.key", "")?;
        host.sh(
            "chmod 755 /usr/bin/fleetd; chown -R nobody /etc/keys; chmod -R go= /etc/keys /root/own.key",
        )?
        .ok()?;
        install(host)?;
        // The stand-in's notification is from systemd-notify, a child. fleetd's own is from the
        // main process.
        host.write_file("/etc/systemd/system/fleet.service.d/test.conf", "[Service]\nNotifyAccess=all\n")?;
        host.exec(&["systemctl", "daemon-reload"])?.ok()?;
        let started = host.exec(&["systemctl", "enable", "--now", "fleet.socket", "fleet.service"])?;
        ensure!(started.code == 0, "{}", host.journal(60)?);
        ensure!(host.is_active("fleet.service") && host.is_active("probe.service"));
        assert_eq!(host.sh("stat -Lc '%F %a %U:%G' /var/run/fleet.sock")?.ok()?, "socket 660 root:root\n");

        let unit = host.main_pid("probe.service")?;
        for verb in ["restart", "stop"] {
            host.exec(&["systemctl", verb, "fleet.service"])?.ok()?;
            ensure!(host.main_pid("probe.service")? == unit, "{verb} of fleet.service touched a unit");
            host.read_file("/run/fleet/units/probe.service")?;
        }
        Ok(())
    });
}

fn install(host: &lab::Host) -> anyhow::Result<()> {
    for unit in ["fleet.service", "fleet.socket"] {
        let content = std::fs::read(repository().join("units").join(unit))?;
        host.write_file(&format!("/usr/lib/systemd/system/{unit}"), content)?;
    }
    host.exec(&["systemctl", "daemon-reload"])?.ok().map(drop)
}
