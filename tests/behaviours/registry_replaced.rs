//! Shows that a registry which was wiped, restored from a backup, or is another one's is no instruction to stop anything.

use anyhow::{Result, ensure};
use lab::{Host, Lab, Member};

use crate::workload::{self, SOON, active, fleet_journal, launch, status_text, untouched, works};

#[test]
fn a_wiped_registry_stops_nothing_until_somebody_accepts_it() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        lab.member(1).wipe()?;
        lab.member(1).restart()?;
        held(lab, lab.hosts(), "belongs to cluster")?;
        untouched(lab, &before, "a registry that was wiped")?;

        // Also after a restart, and for a unit that is new in it.
        lab.host(1)
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        launch(lab.host(2), "new.service")?;
        held(lab, lab.hosts(), "belongs to cluster")?;
        ensure!(
            !lab.hosts().iter().any(|host| host.is_active("new.service")),
            "a registry that is held was followed"
        );
        untouched(lab, &before, "a restart in front of a wiped registry")?;

        accept(lab, lab.host(1))?;
        active(lab, "new.service", [lab.host(1)])?;
        lab.wait_until(
            SOON,
            "what the accepted registry does not have is gone",
            || Ok(!lab.host(1).is_active("long.service")),
        )?;
        ensure!(
            lab.host(2).is_active("long.service") && lab.host(3).is_active("long.service"),
            "others stopped theirs"
        );
        Ok(())
    });
}

#[test]
fn a_registry_from_a_backup_stops_nothing_until_somebody_accepts_it() {
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

        for host in lab.hosts() {
            accept(lab, host)?;
        }
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
fn another_fleets_registry_stops_nothing_and_its_own_is_followed_again() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        // The same etcd with another prefix is another registry, and a machine of its own makes it one of a cluster.
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
        untouched(lab, &before, "another fleet's registry")?;
        astray.write_file(
            "/etc/fleet/fleet.conf",
            workload::conf(lab, astray).to_string(),
        )?;
        astray
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        works(lab, "after.service")?;
        untouched(lab, &before, "the way back from another fleet's registry")
    });
}

/// Waits until each of these hosts says why it does not follow the registry: in `fleetctl status`, in its own status
/// line, and in its journal.
fn held<'a>(lab: &Lab, hosts: impl IntoIterator<Item = &'a Host>, why: &str) -> Result<()> {
    for host in hosts {
        lab.wait_until(SOON, &format!("{} says: {why}", host.name()), || {
            let status = host.fleetctl(&["status"])?.ok()?;
            let told = format!("{}... registry", &host.machine_id()[..8]);
            Ok(status
                .lines()
                .any(|line| line.contains(&told) && line.contains(why))
                && status_text(host)?.contains(why)
                && fleet_journal(host)?.contains(why))
        })?;
    }
    Ok(())
}

/// What the message tells an administrator to do.
fn accept(lab: &Lab, host: &Host) -> Result<()> {
    host.sh("systemctl stop fleet.service && rm /var/lib/fleet/desired.json && systemctl start fleet.service")?.ok()?;
    lab.wait_until(SOON, "the registry is followed again", || {
        Ok(!status_text(host)?.contains("keeping what runs"))
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
