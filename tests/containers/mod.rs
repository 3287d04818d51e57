//! Containers on hosts with podman: units that a person wrote for docker.
//!
//! The first two hosts run Debian 12 with podman 4.3, the third Debian 13 with podman 5.4.

mod docker;

use std::time::Duration;

use anyhow::Result;
use lab::{Host, Lab, Output};

/// Hosts that start containers are slower than others.
const SOON: Duration = Duration::from_secs(60);

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
        lab.install_fleet(|_| lab.fleet_conf().line("agent_ttl=3s"))?;
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

/// The command of each running container, one a line.
fn commands(host: &Host) -> Result<String> {
    host.sh("podman ps --no-trunc --format '{{.Names}}: {{.Command}}' 2> /dev/null")?
        .ok()
}
