//! Shows that a host's socket decides who may connect, and that groups decide who may read and
//! change.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Output, repository};

use crate::support::looking::{SOON, refused, runs_everywhere, sleeper};

/// The journal's message about a missing group.
const MISSING: &str =
    "this machine has no group fleet: until it has one, the group gives no access to the API";

#[test]
fn groups_decide_who_reads_and_who_changes() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        let snippet = repository().join("units/fleet.sysusers");
        host.write_file("/usr/lib/sysusers.d/fleet.conf", std::fs::read(snippet)?)?;
        host.exec(&["systemd-sysusers"])?.ok()?;
        host.sh("groupadd fleet-admin")?.ok()?;
        users(
            host,
            &[
                ("alice", "fleet"),
                ("bob", "fleet,fleet-admin"),
                ("carol", ""),
            ],
        )?;
        lab.install_fleet(|_| lab.fleet_conf())?;
        host.write_file("/etc/fleet/units/a.service", sleeper(1000))?;
        host.write_file("/tmp/b.service", sleeper(1000))?;
        runs_everywhere(lab, "a.service", 1000)?;
        by_default(host).context("by default")?;
        host.write_file(
            "/etc/fleet/fleet.conf",
            lab.fleet_conf()
                .line("api_change_group=fleet-admin")
                .to_string(),
        )?;
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        readers(host).context("with api_change_group")?;
        strangers(host).context("with SocketMode=0666")
    });
}

/// Checks that the group fleet may do everything, and that other users cannot connect.
fn by_default(host: &Host) -> Result<()> {
    let stat = host.sh("stat -c '%a %U:%G' /run/fleet.sock")?.ok()?;
    ensure!(stat == "660 root:fleet\n", "{stat}");
    fleetctl_as(host, "alice", &["list-units"])?.ok()?;
    fleetctl_as(host, "alice", &["submit", "/tmp/b.service"])?.ok()?;
    fleetctl_as(host, "alice", &["destroy", "b.service"])?.ok()?;
    let asked = fleetctl_as(host, "carol", &["list-units"])?;
    refused(
        &asked,
        1,
        "Permission denied. Only root and the group fleet may connect",
    )?;
    ensure!(!host.journal(1000)?.contains(MISSING));
    Ok(())
}

/// Checks that the group fleet may read, and another group may change.
fn readers(host: &Host) -> Result<()> {
    for reading in [
        &["list-units"][..],
        &["list-machines"],
        &["cat", "a.service"],
        &["status"],
        &["explain", "a.service"],
    ] {
        fleetctl_as(host, "alice", reading)?.ok()?;
    }
    // It would create a unit: exit code 1 means that something would change.
    let plan = fleetctl_as(host, "alice", &["plan", "/tmp/b.service"])?;
    ensure!(plan.code == 1 && plan.stderr.is_empty(), "{}", plan.stderr);
    for changing in [
        &["destroy", "a.service"][..],
        &["stop", "a.service"],
        &["submit", "/tmp/b.service"],
        &["restart", "a.service"],
        &["metadata", "190c", "a=1"],
        &["drain", "190c"],
    ] {
        let asked = fleetctl_as(host, "alice", changing)?;
        let why = "user alice may not change the fleet: only root and the group fleet-admin may (api_change_group in \
                   fleet.conf); try sudo, or join the group (usermod --append --groups fleet-admin alice) and log in again";
        refused(&asked, 1, why).with_context(|| format!("{changing:?}"))?;
    }
    ensure!(host.is_active("a.service"), "a reader has stopped a unit");
    fleetctl_as(host, "bob", &["submit", "/tmp/b.service"])?.ok()?;
    fleetctl_as(host, "bob", &["destroy", "b.service"])?.ok()?;
    Ok(())
}

/// Checks that fleetd refuses users whom the socket lets in without a right.
fn strangers(host: &Host) -> Result<()> {
    host.write_file(
        "/etc/systemd/system/fleet.socket.d/open.conf",
        "[Socket]\nSocketMode=0666\n",
    )?;
    host.exec(&["systemctl", "daemon-reload"])?.ok()?;
    host.exec(&["systemctl", "restart", "fleet.socket", "fleet.service"])?
        .ok()?;
    for command in [&["list-units"][..], &["destroy", "a.service"]] {
        // fleetctl reads before it changes anything.
        let asked = fleetctl_as(host, "carol", command)?;
        refused(&asked, 1, "user carol may not read the fleet")?;
    }
    fleetctl_as(host, "alice", &["list-units"])?.ok()?;
    // A process keeps the groups that it was started with, even if the user database changes.
    let started_with = "setpriv --reuid=carol --regid=carol --groups=$(getent group fleet | cut -d: -f3) fleetctl list-units";
    host.sh(started_with)?.ok()?;
    ensure!(host.is_active("a.service"), "a stranger has stopped a unit");
    Ok(())
}

#[test]
fn without_the_group_only_root_uses_the_api() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        users(host, &[("alice", "")])?;
        lab.install_fleet(|_| lab.fleet_conf())?;
        lab.wait_until(SOON, "root is served", || {
            Ok(host.fleetctl(&["list-machines"])?.code == 0)
        })?;
        ensure!(host.is_active("fleet.socket"), "the socket needs the group");
        let told = host.journal(1000)?.matches(MISSING).count();
        ensure!(told == 1, "told {told} times");
        host.sh("chmod 666 /run/fleet.sock")?.ok()?;
        let asked = fleetctl_as(host, "alice", &["list-units"])?;
        refused(
            &asked,
            1,
            "this machine has no such group, so try sudo, or make the group (groupadd --system fleet)",
        )?;
        // This needs no restart.
        host.sh("groupadd --system fleet && usermod --append --groups fleet alice")?
            .ok()?;
        fleetctl_as(host, "alice", &["list-units"])?.ok().map(drop)
    });
}

/// Creates users, each in some groups.
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
