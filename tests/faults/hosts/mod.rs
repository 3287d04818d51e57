//! Real faults on real hosts: their effect on units, read from systemd, and what fleet reports
//! meanwhile.

mod acknowledged;
mod bus;
mod by_hand;
mod clashes;
mod damaged;
mod drift;
mod frozen;
mod kills;
mod loops;
mod stops;
mod upgrades;

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::support::workload::{SOON, conf, problems, status_text};

/// A unit that writes a line for each of its starts.
const TRAIL: &str = "[Service]\nExecStart=/bin/sh -c 'echo ran >> /srv/%n; exec sleep infinity'\n";

/// Installs fleet everywhere, and waits until it answers.
fn install(lab: &Lab) -> Result<()> {
    lab.install_fleet(|host| conf(lab, host))?;
    lab.wait_until(SOON, "fleet answers", || {
        Ok(lab.host(1).fleetctl(&["list-units"])?.code == 0)
    })
}

/// Submits this content and launches it, without waiting.
fn start(host: &Host, name: &str, content: &str) -> Result<()> {
    crate::support::workload::write(host, name, content)?;
    let start = format!("cd /root; fleetctl start --no-block --replace {name}");
    host.sh(&start)?.ok().map(drop)
}

/// Waits until `fleetctl status` and fleetd's status line both report this problem of the host.
fn told(lab: &Lab, host: &Host, text: &str) -> Result<()> {
    let mut seen = (String::new(), String::new());
    let told = lab.wait_until(SOON, &format!("{text:?} is told"), || {
        let status = lab.host(1).fleetctl(&["status"])?.stdout;
        seen = (status, status_text(host)?);
        let machine = format!("{}... ", &host.machine_id()[..8]);
        let mut lines = seen.0.lines();
        Ok(
            lines.any(|line| line.contains(&machine) && line.contains(text))
                && seen.1.contains(text),
        )
    });
    told.map_err(|error| {
        error.context(format!(
            "fleetctl status:\n{}\nstatus line:\n{}",
            seen.0, seen.1
        ))
    })
}

/// Waits until the host has no problem.
fn clean(lab: &Lab, host: &Host) -> Result<()> {
    lab.wait_until(SOON, "no problem is told any more", || {
        let status = lab.host(1).fleetctl(&["status"])?.stdout;
        ensure!(problems(&status).is_empty(), "{status}");
        let line = status_text(host)?;
        ensure!(!line.contains("problem"), "{line}");
        Ok(true)
    })
}
