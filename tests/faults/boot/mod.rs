//! Shows that units start from local disk, whatever fleetd cannot open, reach, resolve or write at
//! boot. The problem is reported, and its fix needs no restart.

mod address;
mod files;
mod names;
mod readme;
mod sockets;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use crate::support::workload::{SOON, active, fleet_journal, launch, status_text};

/// The time limit from fleetd's start to the start of an existing unit.
const LIMIT: Duration = Duration::from_secs(3);

/// Installs fleet on one host, and starts `x.service` there.
fn prepare(lab: &Lab) -> Result<&Host> {
    lab.install_fleet(|_| lab.fleet_conf())?;
    let host = lab.host(1);
    lab.wait_until(SOON, "fleet answers", || {
        Ok(host.fleetctl(&["list-units"])?.code == 0)
    })?;
    launch(host, "x.service")?;
    active(lab, "x.service", [host])?;
    Ok(host)
}

/// Cuts the host's power and restores it. Checks that `x.service` and fleetd are up soon after
/// fleetd's start.
fn comes_back(lab: &Lab, host: &Host) -> Result<()> {
    host.power_on()?;
    active(lab, "fleet.service", [host])?;
    active(lab, "x.service", [host])?;
    let began = moment(host, "fleet.service", "ExecMainStartTimestampMonotonic")?;
    for unit in ["x.service", "fleet.service"] {
        let up = moment(host, unit, "ActiveEnterTimestampMonotonic")?;
        let took = up.saturating_sub(began);
        ensure!(
            took < LIMIT,
            "{unit} was up {took:?} after fleetd's start:\n{}",
            fleet_journal(host)?
        );
    }
    ensure!(
        host.systemctl_show("fleet.service", "NRestarts")? == "0",
        "fleetd had to be started more than once"
    );
    Ok(())
}

fn moment(host: &Host, unit: &str, property: &str) -> Result<Duration> {
    let shown = host.systemctl_show(unit, property)?;
    let microseconds = shown.parse().with_context(|| format!("{unit}: {shown}"))?;
    Ok(Duration::from_micros(microseconds))
}

/// Waits until the status line of fleet.service contains this text, or no longer does.
fn status_line(lab: &Lab, host: &Host, text: &str, expected: bool) -> Result<()> {
    let mut line = String::new();
    lab.wait_until(
        SOON,
        &format!("the status line has `{text}`: {expected}"),
        || {
            line = status_text(host)?;
            Ok(line.contains(text) == expected)
        },
    )
    .with_context(|| line)
}

/// Returns this host's address in `list-machines`.
fn listed_address(host: &Host) -> Result<String> {
    let listed = host.fleetctl(&["list-machines", "--no-legend", "--full"])?;
    let line = listed
        .stdout
        .lines()
        .find(|line| line.starts_with(&host.machine_id()));
    let address = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(address.unwrap_or_default().to_owned())
}
