//! Shows that fleetd needs exactly the etcd rights in docs/howto/etcd.md, and what it reports
//! without one.

use anyhow::{Context, Result, ensure};
use lab::{FleetConf, Host, Lab};

use crate::support::looking::{SOON, runs_everywhere, sleeper};

const PASSWORD: &str = "correct-horse-4711";
const PREFIX: &str = "/_coreos.com/fleet/";

/// The rights of a host with `disable_engine=true` whose API only reads.
const MACHINE: [(&str, &str); 13] = [
    ("readwrite", "machines/"),
    ("readwrite", "reports/"),
    ("readwrite", "known/"),
    ("read", "cluster"),
    ("read", "acceptance"),
    ("read", "units/"),
    ("read", "owners/"),
    ("read", "metadata/"),
    ("read", "grants/"),
    ("read", "history/"),
    ("read", "rollouts/"),
    ("read", "events/"),
    ("read", "leader"),
];

/// The rights of a host that leads and whose API changes the registry.
const ENGINE: [(&str, &str); 13] = [
    ("readwrite", "machines/"),
    ("readwrite", "reports/"),
    ("readwrite", "known/"),
    ("readwrite", "cluster"),
    ("readwrite", "acceptance"),
    ("readwrite", "units/"),
    ("readwrite", "owners/"),
    ("readwrite", "metadata/"),
    ("readwrite", "grants/"),
    ("readwrite", "history/"),
    ("readwrite", "rollouts/"),
    ("readwrite", "events/"),
    ("readwrite", "leader"),
];

fn etcdctl(lab: &Lab, arguments: &[&str]) -> Result<()> {
    let root = format!("--user=root:{PASSWORD}");
    lab.member(1)
        .etcdctl(&[&[&*root], arguments].concat())?
        .ok()
        .map(drop)
}

fn grant(lab: &Lab, role: &str, (right, key): (&str, &str)) -> Result<()> {
    let key = format!("{PREFIX}{key}");
    etcdctl(
        lab,
        &[
            "role",
            "grant-permission",
            role,
            "--prefix=true",
            right,
            &key,
        ],
    )
}

fn revoke(lab: &Lab, role: &str, key: &str) -> Result<()> {
    let key = format!("{PREFIX}{key}");
    etcdctl(
        lab,
        &["role", "revoke-permission", role, "--prefix=true", &key],
    )
}

fn conf(lab: &Lab, host: &Host) -> FleetConf {
    let conf = lab.fleet_conf().line(&format!("etcd_password={PASSWORD}"));
    if host.number() == 1 {
        conf.line("etcd_username=engine")
    } else {
        conf.line("etcd_username=machine")
            .line("disable_engine=true")
    }
}

/// Turns authentication on, with a user for each role.
fn roles(lab: &Lab) -> Result<()> {
    let member = lab.member(1);
    for arguments in [
        &["user", "add", &format!("root:{PASSWORD}")][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        member.etcdctl(arguments)?.ok()?;
    }
    for (role, permissions) in [("machine", MACHINE), ("engine", ENGINE)] {
        etcdctl(lab, &["user", "add", &format!("{role}:{PASSWORD}")])?;
        etcdctl(lab, &["role", "add", role])?;
        etcdctl(lab, &["user", "grant-role", role, role])?;
        permissions
            .into_iter()
            .try_for_each(|it| grant(lab, role, it))?;
    }
    Ok(())
}

#[test]
fn roles_need_what_is_documented_and_nothing_more() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        roles(lab)?;
        lab.install_fleet(|host| conf(lab, host))?;
        let (one, two) = (lab.host(1), lab.host(2));
        one.write_file("/root/a.service", sleeper(1000))?;
        // etcd checks a password at the first request, which takes a while.
        lab.wait_until(SOON, "a.service is started", || {
            Ok(one.fleetctl(&["start", "/root/a.service"])?.code == 0)
        })?;
        runs_everywhere(lab, "a.service", 1000)?;
        everything(one).context("with exactly these permissions")?;
        // It was drained a moment ago.
        lab.wait_until(SOON, "a.service is available everywhere again", || {
            Ok(two.fleetctl(&["rollout", "status", "a.service"])?.code == 0)
        })?;
        reading_only(two).context("a machine whose role reads")?;
        without_one(lab, two).context("without one of them")?;
        // With all rights restored, an update succeeds.
        one.write_file("/root/a.service", sleeper(2000))?;
        one.fleetctl(&["start", "--replace", "/root/a.service"])?
            .ok()?;
        runs_everywhere(lab, "a.service", 2000)
    });
}

/// Makes every kind of change to the registry.
fn everything(host: &Host) -> Result<()> {
    host.write_file("/root/b.service", sleeper(1000))?;
    for command in [
        &["start", "--wait", "/root/b.service"][..],
        &["restart", "b.service"],
        &["rollout", "status", "--watch", "b.service"],
        &["rollout", "history", "b.service"],
        &["events"],
        &["explain", "b.service"],
        &["status"],
        &["drain", "190c"],
        &["uncordon", "190c"],
        &["destroy", "b.service"],
    ] {
        host.fleetctl(command)?
            .ok()
            .with_context(|| format!("{command:?}"))?;
    }
    Ok(())
}

fn reading_only(host: &Host) -> Result<()> {
    for command in [
        &["list-units"][..],
        &["list-machines"],
        &["status"],
        &["status", "a.service"],
        &["rollout", "status", "a.service"],
        &["rollout", "history", "a.service"],
        &["events"],
        &["explain", "a.service"],
    ] {
        host.fleetctl(command)?
            .ok()
            .with_context(|| format!("{command:?}"))?;
    }
    let refused = host.fleetctl(&["stop", "a.service"])?;
    ensure!(
        refused.code == 1
            && refused
                .stderr
                .contains("the registry refuses this fleetd: etcd http://")
            && refused
                .stderr
                .contains("permission denied; grant this etcd user a role")
            && refused
                .stderr
                .contains("(this was to write units/a.service)"),
        "{refused:?}"
    );
    let status = host
        .sh("curl -s -o /dev/null -w '%{http_code}' -X DELETE --unix-socket /run/fleet.sock http://a/fleet/v1/units/a.service || true")?
        .stdout;
    // Some images have no curl.
    ensure!(status.is_empty() || status == "502", "{status}");
    ensure!(host.is_active("a.service"));
    Ok(())
}

/// Checks that each permission is needed, and that an error names it when it is missing.
fn without_one(lab: &Lab, host: &Host) -> Result<()> {
    let pid = host.main_pid("a.service")?;
    for permission in MACHINE {
        let (_, key) = permission;
        let key_name = key.trim_end_matches('/');
        revoke(lab, "machine", key)?;
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        let mut said = String::new();
        lab.wait_until(
            SOON,
            &format!("a missing right to {key} is reported"),
            || {
                said = String::new();
                for command in [
                    &["status"][..],
                    &["rollout", "history", "a.service"],
                    &["rollout", "status", "a.service"],
                    &["events"],
                ] {
                    said += &host.fleetctl(command)?.stderr;
                }
                said += &host.journal(20)?;
                Ok(said.lines().any(|line| {
                    line.contains("permission denied; grant") && line.contains(key_name)
                }))
            },
        )
        .with_context(|| said)?;
        ensure!(
            host.main_pid("a.service")? == pid,
            "a.service was touched without {key}"
        );
        grant(lab, "machine", permission)?;
    }
    Ok(())
}

#[test]
fn engine_without_a_right_names_it_and_resumes_once_granted() {
    Lab::builder().etcd(1).test(|lab| {
        roles(lab)?;
        lab.install_fleet(|host| conf(lab, host))?;
        let host = lab.host(1);
        host.write_file("/root/a.service", sleeper(1000))?;
        lab.wait_until(SOON, "a.service is started", || {
            Ok(host.fleetctl(&["start", "/root/a.service"])?.code == 0)
        })?;
        runs_everywhere(lab, "a.service", 1000)?;
        whoever_asks(lab, host)?;
        for (at, key) in ["rollouts/", "grants/", "events/", "leader"]
            .into_iter()
            .enumerate()
        {
            leader_without(lab, host, key, 1001 + u32::try_from(at)?)
                .with_context(|| format!("without {key}"))?;
        }
        Ok(())
    });
}

/// Removes the right to write below a key and leaves the one to read, or grants both.
fn may(lab: &Lab, right: &str, key: &str) -> Result<()> {
    revoke(lab, "engine", key)?;
    grant(lab, "engine", (right, key))
}

fn whoever_asks(lab: &Lab, host: &Host) -> Result<()> {
    host.write_file("/root/b.service", sleeper(1000))?;
    for (key, command) in [
        ("units/", ["submit", "/root/b.service"]),
        // A submission also remembers its content.
        ("history/", ["submit", "/root/b.service"]),
        ("metadata/", ["drain", "190c"]),
    ] {
        may(lab, "read", key)?;
        let asked = host.fleetctl(&command)?;
        let names = asked.stderr.contains("(this was to write ") && asked.stderr.contains(key);
        ensure!(asked.code == 1 && names, "{key}: {asked:?}");
        may(lab, "readwrite", key)?;
    }
    Ok(())
}

/// Checks that an update waits for the missing right, and that fleetd reports it.
fn leader_without(lab: &Lab, host: &Host, key: &str, seconds: u32) -> Result<()> {
    let restart = || host.exec(&["systemctl", "restart", "fleet.service"])?.ok();
    may(lab, "read", key)?;
    if key == "leader" {
        restart()?;
    }
    host.write_file("/root/a.service", sleeper(seconds))?;
    lab.wait_until(SOON, "the update is taken", || {
        let update = ["start", "--replace", "/root/a.service"];
        Ok(host.fleetctl(&update)?.code == 0)
    })?;
    let mut said = String::new();
    lab.wait_until(SOON, "the journal tells of it", || {
        said = host.journal(20)?;
        Ok(said.lines().any(|line| {
            line.contains("permission denied; grant")
                && line.contains("this was to write")
                && line.contains(key)
        }))
    })
    .with_context(|| said)?;
    may(lab, "readwrite", key)?;
    // For this one key the update must continue by itself. For the others a restart is faster,
    // because a new leader checks at once.
    if key != "rollouts/" {
        restart()?;
    }
    runs_everywhere(lab, "a.service", seconds)?;
    lab.wait_until(SOON, "it is done", || {
        let status = ["rollout", "status", "a.service"];
        Ok(host.fleetctl(&status)?.code == 0)
    })
}
