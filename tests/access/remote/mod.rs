//! Shows what fleetctl does on other hosts over ssh.

mod host_keys;
mod journal;
mod ssh;
mod tunnel;

use anyhow::Result;
use lab::{Host, Lab, Output};

use crate::support::looking::SOON;

/// Runs `body` on three hosts that run fleet, are all listed, and can log in on each other.
fn on_three_hosts(body: impl FnOnce(&Lab) -> Result<()>) {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        lab.start_sshd()?;
        lab.install_fleet(|host| lab.fleet_conf().metadata(&format!("host={}", host.name())))?;
        lab.wait_until(SOON, "all machines are listed", || {
            let listed = fleetctl(lab.host(1), "list-machines --no-legend")?.ok()?;
            Ok(listed.lines().count() == 3)
        })?;
        body(lab)
    });
}

/// Runs fleetctl on a host, in root's home.
fn fleetctl(host: &Host, arguments: &str) -> Result<Output> {
    host.sh(&format!("cd /root; exec fleetctl {arguments}"))
}

/// Returns the number of logins on a host as this user, from the first host.
fn logins(host: &Host, user: &str, from: &Host) -> Result<usize> {
    let accepted = format!("Accepted publickey for {user} from {} ", from.address());
    let log = host
        .sh("journalctl --sync && journalctl --unit=ssh.service --output=cat")?
        .ok()?;
    Ok(log
        .lines()
        .filter(|line| line.starts_with(&accepted))
        .count())
}
