//! Who may do what with fleet on a host, and over the network.

mod etcd_roles;
mod groups;
mod links;
mod names;
mod tls;

use anyhow::Result;
use lab::{Host, Output};

/// Makes users, each in some groups.
fn users(host: &Host, users: &[(&str, &str)]) -> Result<()> {
    for (user, groups) in users {
        let groups = match *groups {
            "" => String::new(),
            groups => format!("--groups {groups} "),
        };
        host.sh(&format!("useradd {groups}{user}"))?.ok()?;
    }
    Ok(())
}

/// Runs fleetctl as a user who has just logged in.
fn fleetctl_as(host: &Host, user: &str, arguments: &[&str]) -> Result<Output> {
    let user = [
        "setpriv",
        &format!("--reuid={user}"),
        &format!("--regid={user}"),
        "--init-groups",
        "fleetctl",
    ];
    host.exec(&[&user, arguments].concat())
}
