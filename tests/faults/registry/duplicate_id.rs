//! Shows that two hosts with one machine id, like clones of a disk, both run their units and do not
//! fight over the registry. They report the problem and its fix.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::{clean, told};
use crate::support::looking::settled;
use crate::support::workload::{self, SOON, fleet_journal, fleetd, trace, works};

#[test]
fn duplicate_machine_id_is_reported_and_units_run_on() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let (speaker, original, clone) = (lab.host(1), lab.host(2), lab.host(3));
        has_id(clone, &original.machine_id())?;
        let before = workload::start(lab)?;
        let pids = [fleetd(original)?, fleetd(clone)?];

        // The last one to join is listed.
        let listed = listed(lab, speaker)?;
        let aside = if listed.number() == clone.number() { original } else { clone };
        let of_aside = format!("{} has the id of this machine too, and stands aside", aside.address());
        let of_listed = format!("{} has the id of this machine too, and is listed under it", listed.address());
        told(lab, listed, &of_aside)?;
        told(lab, aside, &of_listed)?;
        lab.wait_until(SOON, "fleetctl status tells what is wrong and what to do", || {
            let status = speaker.fleetctl(&["status"])?.stdout;
            let id = format!("{}... machine id: {of_aside}", &original.machine_id()[..8]);
            Ok(status.contains(&id) && status.contains("rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot"))
        })?;
        let machines = speaker.fleetctl(&["list-machines"])?;
        let warning = format!(
            "WARNING: the machine at {} is not listed: its id {} is also that of the machine at {}",
            aside.address(),
            original.machine_id(),
            listed.address()
        );
        ensure!(machines.stderr.contains(&warning), "{machines:?}");

        // While nothing changes, nothing is written, so neither host takes the id back. A service
        // counts as available five seconds after its start, which is the last report.
        thread::sleep(Duration::from_secs(6));
        let revision = settled(lab)?;
        thread::sleep(Duration::from_secs(7));
        let newest = ["get", "--prefix", "--sort-by=MODIFY", "--order=DESCEND", "--limit=3", "/"];
        let newest = lab.member(1).etcdctl(&newest)?.ok()?;
        ensure!(settled(lab)? == revision, "something is written again and again: {newest}");
        works(lab, "new.service")?;
        for host in [original, clone] {
            let journal = fleet_journal(host)?;
            let lost = journal.matches("not visible in the registry").count();
            ensure!(lost == 0, "{}:\n{journal}", host.name());
        }
        for (host, before) in lab.hosts().iter().zip(&before) {
            ensure!(trace(host)? == *before, "units of {} were touched", host.name());
        }
        ensure!([fleetd(original)?, fleetd(clone)?] == pids);

        has_id(clone, &clone.machine_id())?;
        clean(lab)?;
        works(lab, "after.service")?;
        for (host, before) in lab.hosts()[..2].iter().zip(&before) {
            ensure!(trace(host)? == *before, "units of {} were touched", host.name());
        }
        Ok(())
    });
}

/// Gives a host that machine id, like the commands that `fleetctl status` proposes.
fn has_id(host: &Host, id: &str) -> Result<()> {
    host.write_file("/etc/machine-id", format!("{id}\n"))?;
    host.reboot()
}

/// Waits until one of the second and the third host is listed and the other is not. Returns the
/// listed one.
fn listed<'a>(lab: &'a Lab, speaker: &Host) -> Result<&'a Host> {
    let mut listed = Vec::new();
    lab.wait_until(SOON, "one of the two is listed", || {
        let machines = speaker.fleetctl(&["list-machines", "--no-legend"])?;
        let is_listed = |host: &&Host| machines.stdout.contains(&host.address());
        listed = lab.hosts()[1..].iter().filter(is_listed).collect();
        Ok(listed.len() == 1
            && machines.stdout.lines().count() == 2
            && machines.stderr.contains("WARNING"))
    })?;
    Ok(listed[0])
}
