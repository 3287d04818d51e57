//! Shows that no unit is affected when fleetd, or a service that it uses, is restarted, killed,
//! upgraded or stopped.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::support::workload::{self, SOON, active, fleetd, fleetd_again, untouched, works};

/// Returns whether fleetd has saved the results of all starts of units of that kind.
fn answered(host: &Host, kind: &str) -> Result<bool> {
    let marks: serde_json::Value = serde_json::from_str(&host.read_file("/run/fleet/marks.json")?)?;
    let mut starting = marks["starting"].as_array().into_iter().flatten();
    Ok(!starting.any(|name| name.as_str().is_some_and(|name| name.starts_with(kind))))
}

#[test]
fn units_run_on_whatever_happens_to_fleetd() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;

        restart_all(lab)?;
        untouched(lab, &before, "a restart of fleetd")?;
        works(lab, "after-restart.service")?;

        for host in lab.hosts() {
            let pid = kill(host)?;
            fleetd_again(lab, host, pid)?;
        }
        untouched(lab, &before, "a kill of fleetd")?;
        works(lab, "after-kill.service")?;

        lab.install_fleet(|host| workload::conf(lab, host))?;
        restart_all(lab)?;
        untouched(lab, &before, "an upgrade")?;
        works(lab, "after-upgrade.service")?;

        for host in lab.hosts() {
            host.exec(&["systemctl", "stop", "fleet.service", "fleet.socket"])?
                .ok()?;
        }
        untouched(lab, &before, "a stop of fleet")?;
        for host in lab.hosts() {
            host.exec(&["systemctl", "start", "fleet.service"])?.ok()?;
        }
        works(lab, "after-stop.service")?;
        untouched(lab, &before, "a start of fleet")
    });
}

#[test]
fn fleetd_killed_while_starting_units_starts_each_once() {
    // They start in the order of their names. Finished oneshots (a) leave nothing in systemd that
    // shows their run. Hanging ones (c) occupy all places for jobs, so the rest waits, but only for
    // two seconds. On a busy machine these may have passed at the kill, so the last ones (d) stay
    // in systemd.
    const UNITS: [(&str, &str, usize); 4] = [
        (
            "a",
            "Type=oneshot\nExecStart=/bin/sh -c 'echo ran >> /srv/%n'",
            20,
        ),
        (
            "b",
            "ExecStart=/bin/sh -c 'echo ran >> /srv/%n; exec sleep infinity'",
            20,
        ),
        (
            "c",
            "Type=oneshot\nExecStart=/bin/sh -c 'echo ran >> /srv/%n; exec sleep infinity'",
            20,
        ),
        (
            "d",
            "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo ran >> /srv/%n'",
            10,
        ),
    ];
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let (first, joins) = (lab.host(1), lab.host(2));
        first.install_fleet(&workload::conf(lab, first))?;
        for (kind, service, count) in UNITS {
            for number in 0..count {
                let name = format!("{kind}{number:02}.service");
                workload::write(first, &name, &format!("[Service]\n{service}\n"))?;
            }
        }
        first.sh("cd /root; fleetctl start ?[0-9]*.service")?.ok()?;
        // The usual two seconds until the next start would make this too calm.
        joins.write_file(
            "/etc/systemd/system/fleet.service.d/test.conf",
            "[Service]\nRestartSec=100ms\n",
        )?;
        joins.install_fleet(&workload::conf(lab, joins))?;
        // Each time, the units that are about to be started leave something in systemd. Without
        // that, it would be unknown whether they ran.
        for (started, kind) in [(20, "a"), (20, "b"), (16, "c")] {
            lab.wait_until(
                SOON,
                &format!("{started} units of kind {kind} were started"),
                || Ok(count(joins, kind)? >= started && answered(joins, "a")?),
            )?;
            let pid = kill(joins)?;
            fleetd_again(lab, joins, pid)?;
        }
        for (kind, _, all) in UNITS {
            lab.wait_until(
                SOON,
                &format!("all units of kind {kind} were started"),
                || Ok(count(joins, kind)? == all),
            )?;
        }
        works(lab, "after.service")?;
        let twice = joins.sh("cd /srv; grep -c ran ?[0-9]* | grep -v ':1$'")?;
        ensure!(
            twice.stdout.is_empty(),
            "not started once:\n{}",
            twice.stdout
        );
        Ok(())
    });
}

#[test]
fn units_run_on_when_systemd_or_its_bus_restarts() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let host = lab.host(1);
        for command in [
            &["systemctl", "daemon-reexec"],
            &["systemctl", "daemon-reload"],
            &["systemctl", "restart", "dbus.service"][..],
        ] {
            let pid = fleetd(host)?;
            host.exec(command)?.ok()?;
            works(lab, "after.service")?;
            untouched(lab, &before, &command.join(" "))?;
            ensure!(fleetd(host)? == pid, "fleetd did not outlive {command:?}");
        }
        Ok(())
    });
}

#[test]
fn change_by_hand_is_corrected_without_a_restart_or_kept() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let host = lab.host(1);
        let path = "/run/fleet/units/long.service";
        let file = host.read_file(path)?;
        host.write_file(path, "[Service]\nExecStart=/bin/false\n")?;
        host.exec(&["systemctl", "daemon-reload"])?.ok()?;
        lab.wait_until(
            SOON,
            "the file is fleet's again, and systemd has read it",
            || {
                let line = host.systemctl_show("long.service", "ExecStart")?;
                Ok(host.read_file(path)? == file && line.contains("sleep"))
            },
        )?;
        std::fs::remove_file(host.path(path))?;
        host.exec(&["systemctl", "daemon-reload"])?.ok()?;
        lab.wait_until(SOON, "the file is back", || {
            Ok(host.read_file(path)? == file
                && host.systemctl_show("long.service", "LoadState")? == "loaded"
                && host.systemctl_show("long.service", "NeedDaemonReload")? == "no")
        })?;
        untouched(lab, &before, "a changed or removed file")?;

        host.exec(&["systemctl", "stop", "long.service"])?.ok()?;
        lab.wait_until(SOON, "the stop is reported", || {
            let row = host.fleetctl(&["list-units", "--no-legend"])?.ok()?;
            Ok(row
                .lines()
                .any(|row| row.starts_with("long.service") && row.contains("inactive")))
        })?;
        works(lab, "after.service")?;
        let pid = fleetd(host)?;
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        fleetd_again(lab, host, pid)?;
        works(lab, "after-restart.service")?;
        ensure!(
            !host.is_active("long.service"),
            "what an administrator stopped was started"
        );
        host.exec(&["systemctl", "start", "long.service"])?.ok()?;
        active(lab, "long.service", lab.hosts())
    });
}

/// Returns how many units whose names start like this have run.
fn count(host: &Host, kind: &str) -> Result<usize> {
    Ok(host
        .sh(&format!("ls /srv | grep -c ^{kind}[0-9]"))?
        .stdout
        .trim()
        .parse()?)
}

/// Kills fleetd on that host, and returns its pid. systemd may not have noticed yet.
fn kill(host: &Host) -> Result<u32> {
    let pid = fleetd(host)?;
    ensure!(pid != 0, "fleetd does not run on {}", host.name());
    host.sh(&format!("kill -KILL {pid}"))?.ok()?;
    Ok(pid)
}

fn restart_all(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        let pid = fleetd(host)?;
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        fleetd_again(lab, host, pid)?;
    }
    Ok(())
}
