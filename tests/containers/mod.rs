//! Containers on hosts with podman: units that a person wrote for docker.
//!
//! The first two hosts run Debian 12 with podman 4.3, the third Debian 13 with podman 5.4.

mod daemonset;
mod docker;
mod faults;

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Host, Lab, Output};

/// Hosts that start containers are slower than others.
const SOON: Duration = Duration::from_secs(120);

/// The machines as listings show them.
const MACHINES: [&str; 3] = [
    "190c6f8f.../10.99.1.1",
    "c46a8ace.../10.99.1.2",
    "d77c07da.../10.99.1.3",
];

/// Runs `body` on three hosts with podman that run fleet, are all listed, and let each other in.
fn on_three_hosts(body: impl FnOnce(&Lab) -> Result<()>) {
    let builder = Lab::builder().hosts(3).suite_of(3, "trixie").podman();
    builder.etcd(1).test(|lab| {
        lab.start_sshd()?;
        lab.install_fleet(|_| lab.fleet_conf())?;
        lab.wait_until(SOON, "all machines are listed", || {
            let listed = fleetctl(lab, "list-machines --no-legend")?.ok()?;
            Ok(listed.lines().count() == 3)
        })?;
        body(lab)
    });
}

/// Runs fleetctl on the first host, in root's home.
fn fleetctl(lab: &Lab, arguments: &str) -> Result<Output> {
    lab.host(1)
        .sh(&format!("cd /root; exec fleetctl {arguments}"))
}

/// Waits until the newest rollout of a unit has ended, and returns what is said of it.
fn end_of_rollout(lab: &Lab, unit: &str) -> Result<Output> {
    let mut said = None;
    lab.wait_until(SOON, &format!("the rollout of {unit} has ended"), || {
        // Ended before the lab would end it: three machines take their time on a busy machine.
        let watch = format!("timeout 30 fleetctl rollout status --watch {unit}");
        let output = lab.host(1).sh(&watch)?;
        let has_ended = output.code != 124;
        said = Some(output);
        Ok(has_ended)
    })?;
    said.context("nothing was said")
}

/// The command of each running container, one a line.
fn commands(host: &Host) -> Result<String> {
    host.sh("podman ps --no-trunc --format '{{.Names}}: {{.Command}}' 2> /dev/null")?
        .ok()
}
