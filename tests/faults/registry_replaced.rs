//! Shows that a registry that was wiped, restored from a backup, or belongs to another fleet stops
//! no unit.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Host, Lab, Member};

use crate::support::workload::{
    self, SOON, active, fleet_journal, launch, status_text, untouched, works,
};

#[test]
fn wiped_registry_stops_nothing_until_it_is_accepted() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        lab.member(1).wipe()?;
        lab.member(1).restart()?;
        held(lab, lab.hosts(), "belongs to cluster")?;
        untouched(lab, &before, "a registry that was wiped")?;

        // This also holds after a restart, and nothing in the registry is changed.
        lab.host(1)
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        held(lab, lab.hosts(), "belongs to cluster")?;
        refuses(lab.host(2))?;
        drop_file(lab.host(3), "dropped.service")?;
        refuses(lab.host(1))?;
        for key in ["cluster", "leader", "units/"] {
            let found = lab
                .member(1)
                .etcdctl(&["get", "--prefix", &format!("/_coreos.com/fleet/{key}")])?
                .ok()?;
            ensure!(
                found.is_empty(),
                "{key} was written into a registry that is held: {found}"
            );
        }
        untouched(lab, &before, "a restart in front of a wiped registry")?;

        let shown = lab
            .host(2)
            .fleetctl(&["accept-registry", "--dry-run"])?
            .ok()?;
        ensure!(
            shown.contains("stops") && shown.contains("long.service"),
            "{shown}"
        );
        held(lab, lab.hosts(), "belongs to cluster")?;
        // A host that was off at the acceptance follows it too.
        lab.host(1)
            .exec(&["systemctl", "stop", "fleet.service"])?
            .ok()?;
        accept(lab, lab.host(2), &lab.hosts()[1..])?;
        lab.wait_until(
            SOON,
            "what the accepted registry does not have is gone",
            || {
                Ok(!lab.hosts()[1..]
                    .iter()
                    .any(|host| host.is_active("long.service")))
            },
        )?;
        ensure!(
            lab.host(1).is_active("long.service"),
            "no fleetd runs there"
        );
        lab.host(1)
            .exec(&["systemctl", "start", "fleet.service"])?
            .ok()?;
        lab.wait_until(SOON, "it is gone where fleetd was off, too", || {
            Ok(!lab.host(1).is_active("long.service"))
        })?;
        active(lab, "dropped.service", lab.hosts())?;
        works(lab, "after.service")
    });
}

#[test]
fn registry_from_a_backup_stops_nothing_until_it_is_accepted() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let etcd = lab.member(1);
        let backup = etcd.data().with_extension("backup").display().to_string();
        let before = workload::start(lab)?;
        launch(lab.host(1), "gone-since.service")?;
        active(lab, "gone-since.service", lab.hosts())?;
        etcd.etcdctl(&["snapshot", "save", &backup])?.ok()?;
        lab.host(1)
            .fleetctl(&["destroy", "gone-since.service"])?
            .ok()?;
        launch(lab.host(1), "new-since.service")?;
        active(lab, "new-since.service", lab.hosts())?;
        restore(etcd, &backup)?;

        held(lab, lab.hosts(), "restored from a backup")?;
        ensure!(lab.hosts().iter().all(
            |host| host.is_active("new-since.service") && !host.is_active("gone-since.service")
        ));
        untouched(lab, &before, "a registry from a backup")?;

        refuses(lab.host(1))?;
        drop_file(lab.host(2), "dropped.service")?;
        unpublished(lab, "/_coreos.com/fleet/", "dropped.service")?;
        untouched(
            lab,
            &before,
            "a file dropped beside a registry from a backup",
        )?;
        accept(lab, lab.host(3), lab.hosts())?;
        active(lab, "dropped.service", lab.hosts())?;
        active(lab, "gone-since.service", lab.hosts())?;
        lab.wait_until(SOON, "what is newer than the backup is gone", || {
            Ok(!lab
                .hosts()
                .iter()
                .any(|host| host.is_active("new-since.service")))
        })?;
        works(lab, "after.service")?;
        untouched(lab, &before, "accepting a registry from a backup")
    });
}

#[test]
fn registry_of_another_fleet_stops_nothing() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        // The same etcd with another prefix is another registry.
        let id = r#"{"format":1,"id":"0123456789abcdef0123456789abcdef"}"#;
        lab.member(1)
            .etcdctl(&["put", "/other/cluster", id])?
            .ok()?;
        let astray = lab.host(3);
        astray.write_file(
            "/etc/fleet/fleet.conf",
            workload::conf(lab, astray)
                .line("etcd_key_prefix=/other/")
                .to_string(),
        )?;
        astray
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        held(lab, [astray], "belongs to cluster")?;
        refuses(astray)?;
        drop_file(astray, "dropped.service")?;
        unpublished(lab, "/other/", "dropped.service")?;
        let led = lab.member(1).etcdctl(&["get", "/other/leader"])?.ok()?;
        ensure!(
            led.is_empty(),
            "it leads in another fleet's registry: {led}"
        );
        untouched(lab, &before, "another fleet's registry")?;
        astray.write_file(
            "/etc/fleet/fleet.conf",
            workload::conf(lab, astray).to_string(),
        )?;
        astray
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        active(lab, "dropped.service", lab.hosts())?;
        works(lab, "after.service")?;
        untouched(lab, &before, "the way back from another fleet's registry")
    });
}

/// Waits until each of these hosts reports why it does not follow the registry: in
/// `fleetctl status`, in its status line, and in its journal.
fn held<'a>(lab: &Lab, hosts: impl IntoIterator<Item = &'a Host>, why: &str) -> Result<()> {
    for host in hosts {
        lab.wait_until(SOON, &format!("{} says: {why}", host.name()), || {
            let status = host.fleetctl(&["status"])?.stdout;
            let machine = format!("{}...", &host.machine_id()[..8]);
            Ok(status.lines().any(|line| {
                line.contains(&machine) && line.contains(" registry") && line.contains(why)
            }) && status_text(host)?.contains(why)
                && fleet_journal(host)?.contains(why))
        })?;
        for listing in ["list-machines", "list-units", "list-unit-files"] {
            let listed = host.fleetctl(&[listing])?;
            let warns = listed.stderr.lines().any(|line| {
                line.starts_with("WARNING: this machine does not follow what is shown here: ")
                    && line.contains(why)
            });
            ensure!(listed.code == 0 && warns, "{listed:?}");
        }
    }
    Ok(())
}

/// Checks that a machine that holds the registry refuses a change.
fn refuses(host: &Host) -> Result<()> {
    workload::write(
        host,
        "new.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    )?;
    let answer = host.sh("cd /root; fleetctl start new.service 2>&1")?;
    ensure!(
        answer.code != 0 && answer.stdout.contains("nothing was changed: the registry"),
        "a registry that is held was changed: {answer:?}"
    );
    Ok(())
}

fn drop_file(host: &Host, name: &str) -> Result<()> {
    let unit = "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nGlobal=true\n";
    host.write_file(&format!("/etc/fleet/units/{name}"), unit)
}

/// Checks that a machine that holds the registry publishes no file of its units directory, for
/// longer than publishing takes.
fn unpublished(lab: &Lab, prefix: &str, name: &str) -> Result<()> {
    std::thread::sleep(Duration::from_secs(3));
    let key = format!("{prefix}units/{name}");
    let found = lab.member(1).etcdctl(&["get", &key])?.ok()?;
    ensure!(found.is_empty(), "it was published: {found}");
    Ok(())
}

/// Follows the message's steps for an administrator, once, on any host.
fn accept(lab: &Lab, host: &Host, hosts: &[Host]) -> Result<()> {
    let unasked = host.sh("fleetctl accept-registry </dev/null 2>&1")?;
    ensure!(
        unasked.code != 0 && unasked.stdout.contains("nothing was accepted"),
        "{unasked:?}"
    );
    host.fleetctl(&["accept-registry", "--yes"])?.ok()?;
    lab.wait_until(SOON, "the registry is followed again", || {
        for host in hosts {
            if status_text(host)?.contains("keeping what runs") {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

fn restore(etcd: &Member, backup: &str) -> Result<()> {
    etcd.wipe()?;
    let data = format!("--data-dir={}", etcd.data().display());
    let peers = etcd.endpoint().replace("2379", "2380");
    let [name, cluster, advertised] = [
        format!("--name={}", etcd.name()),
        format!("--initial-cluster={}={peers}", etcd.name()),
        format!("--initial-advertise-peer-urls={peers}"),
    ];
    etcd.etcdctl(&[
        "snapshot",
        "restore",
        backup,
        &data,
        &name,
        &cluster,
        &advertised,
    ])?
    .ok()?;
    etcd.restart()
}
