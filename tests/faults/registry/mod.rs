//! Faults of the registry and of the network on real hosts: their effect on units, read from
//! systemd, and what fleet reports meanwhile.

mod clock;
mod cut_off;
mod duplicate_id;
mod leader_cut_off;
mod mass_return;
mod members;
mod outage;

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::support::workload::{SOON, conf, fleet_journal, problems, status_text};
use crate::updates::rollouts::at_once;
use crate::updates::rollouts::trail::{self, Trail};

/// The time limit until everything is right again once the registry is back. Two seconds are usual,
/// the longest wait between two attempts. The rest is for a busy machine.
const RETURN: Duration = Duration::from_secs(8);

/// Runs a test on six hosts that know each other, with units that leave trails. Their leases end
/// soon.
fn on_six_hosts(members: usize, body: impl FnOnce(&Lab) -> Result<()>) {
    on_six_hosts_with(members, |_| Ok(()), body);
}

/// Runs the same test after `prepare` on each host, before fleet is installed.
fn on_six_hosts_with(
    members: usize,
    prepare: impl Fn(&Host) -> Result<()> + Sync,
    body: impl FnOnce(&Lab) -> Result<()>,
) {
    Lab::builder().hosts(6).etcd(members).test(|lab| {
        at_once(lab.hosts(), |host| {
            prepare(host)?;
            host.install_fleet(&conf(lab, host))?;
            trail::install(host)
        })?;
        clean(lab)?;
        body(lab)
    });
}

/// The number of hosts that an update of [`version`] may take down: a third of the six.
const BUDGET: usize = 2;

/// Returns a version that takes a second to come up.
fn version(number: u32) -> String {
    let unit = trail::Unit::plain(number).notifies_after(1);
    unit.fleet("Global=true\nMaxUnavailable=2").file()
}

/// Returns an error if an update took down more than that, or if a host ran any other version, or
/// this one more than once.
fn rolled_out(trail: &Trail, number: u32) -> Result<()> {
    let (most, story) = trail.most_down();
    ensure!(
        most <= BUDGET,
        "{most} hosts were without it at once\n{story}"
    );
    for (host, versions) in trail.started() {
        ensure!(versions == [number], "{host} ran {versions:?}\n{story}");
    }
    Ok(())
}

/// Waits until fleetd's status line and its journal report this.
fn told(lab: &Lab, host: &Host, text: &str) -> Result<()> {
    let mut line = String::new();
    let told = lab.wait_until(SOON, &format!("{} tells: {text}", host.name()), || {
        line = status_text(host)?;
        Ok(line.contains(text) && fleet_journal(host)?.contains(text))
    });
    told.map_err(|error| error.context(format!("status line: {line}")))
}

/// Waits until no host reports a problem, and every machine is listed.
fn clean(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        lab.wait_until(
            SOON,
            &format!("{} finds nothing wrong", host.name()),
            || {
                let line = status_text(host)?;
                ensure!(
                    !line.contains("registry") && !line.contains("problem"),
                    "{line}"
                );
                let status = host.fleetctl(&["status"])?.stdout;
                ensure!(
                    status.contains("Problems:")
                        && problems(&status).is_empty()
                        && !status.contains("Offline"),
                    "{status}"
                );
                let machines = host.fleetctl(&["list-machines", "--full", "--no-legend"])?;
                let machines = machines.ok()?;
                for listed in lab.hosts() {
                    ensure!(machines.contains(&listed.machine_id()), "{machines}");
                }
                Ok(true)
            },
        )?;
    }
    Ok(())
}
