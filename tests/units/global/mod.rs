//! Shows that a global unit is on every machine where it belongs, with its file unchanged, in the
//! state that its user ordered.

mod conflicts;
mod counterparts;
mod failures;
mod groups;
mod kinds;
mod metadata;
mod readiness;
mod transcript;
mod triggers;
mod updates;
mod verbatim;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Output};

/// Far longer than anything here takes. A busy machine is slower in everything.
const SOON: Duration = Duration::from_secs(20);

/// A service that runs until it is stopped.
const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep infinity\n\n[X-Fleet]\nGlobal=true\n";

/// Runs `body` on three hosts that run fleet and are all listed.
fn on_three_hosts(body: impl FnOnce(&Lab) -> Result<()>) {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        install(lab)?;
        body(lab)
    });
}

/// Runs `body` as [`on_three_hosts`] does, on this machine's release and on the Debian after it.
fn on_all_suites(body: impl Fn(&Lab) -> Result<()>) {
    Lab::builder().hosts(3).etcd(1).test_on_all_suites(|lab| {
        install(lab)?;
        body(lab)
    });
}

fn install(lab: &Lab) -> Result<()> {
    lab.install_fleet(|host| lab.fleet_conf().metadata(&format!("host={}", host.name())))?;
    lab.wait_until(SOON, "all machines are listed", || {
        let listed = fleetctl(lab.host(1), "list-machines --no-legend")?.ok()?;
        Ok(listed.lines().count() == 3)
    })
}

/// Runs fleetctl in the directory of a test's unit files.
fn fleetctl(host: &Host, arguments: &str) -> Result<Output> {
    host.sh(&format!("cd /root; exec fleetctl {arguments}"))
}

/// Writes unit files where [`fleetctl`] finds them.
fn write(host: &Host, files: &[(&str, &str)]) -> Result<()> {
    let mut files = files.iter();
    files.try_for_each(|(name, content)| host.write_file(&format!("/root/{name}"), content))
}

/// Destroys all units, and waits until no host has any of fleet's files or units.
fn destroy_all(lab: &Lab) -> Result<()> {
    fleetctl(lab.host(1), "destroy '*'")?.ok()?;
    lab.wait_until(SOON, "nothing is left on any host", || {
        let left = lab
            .hosts()
            .iter()
            .map(left_behind)
            .collect::<Result<Vec<_>>>()?;
        ensure!(left.iter().all(String::is_empty), "left: {left:?}");
        Ok(true)
    })
}

/// Returns the files that fleet has left in systemd's directories and its own, one path a line.
fn left_behind(host: &Host) -> Result<String> {
    host.sh("find /run/fleet/units /run/systemd/system -mindepth 1")?
        .ok()
}

/// Waits until `unit` is in this state (`active`, `failed`, ...) on exactly these hosts, and
/// unknown on all others.
fn await_on(lab: &Lab, unit: &str, state: &str, numbers: &[usize]) -> Result<()> {
    lab.wait_until(
        SOON,
        &format!("{unit} is {state} on {numbers:?} alone"),
        || {
            for host in lab.hosts() {
                let expected = if numbers.contains(&host.number()) {
                    format!("loaded {state}")
                } else {
                    "not-found inactive".to_owned()
                };
                let found = format!(
                    "{} {}",
                    host.systemctl_show(unit, "LoadState")?,
                    host.systemctl_show(unit, "ActiveState")?
                );
                ensure!(found == expected, "{}: {found}", host.name());
            }
            Ok(true)
        },
    )
}

/// Waits until `fleetctl list-units` prints exactly this.
fn await_listing(lab: &Lab, arguments: &str, expected: &str) -> Result<()> {
    lab.wait_until(SOON, "the units are listed so", || {
        let listed = fleetctl(lab.host(1), &format!("list-units {arguments}"))?.ok()?;
        ensure!(
            listed == expected,
            "listed are:\n{listed}and not:\n{expected}"
        );
        Ok(true)
    })
}

/// Returns the main pids of a service on all hosts. A host without one is an error.
fn main_pids(lab: &Lab, unit: &str) -> Result<Vec<u32>> {
    let pid = |host: &Host| {
        let pid = host.main_pid(unit)?;
        (pid != 0)
            .then_some(pid)
            .with_context(|| format!("{unit} does not run on {}", host.name()))
    };
    lab.hosts().iter().map(pid).collect()
}

/// Checks the file of a unit on every host.
fn assert_files(lab: &Lab, unit: &str, content: &[u8]) -> Result<()> {
    for host in lab.hosts() {
        let path = format!("/run/fleet/units/{unit}");
        ensure!(
            std::fs::read(host.path(&path))? == content,
            "{path} on {} is not what was sent",
            host.name()
        );
        let link = host
            .sh(&format!("readlink /run/systemd/system/{unit}"))?
            .ok()?;
        assert_eq!(link.trim_end(), path, "on {}", host.name());
    }
    Ok(())
}
