//! Shows that the units directories of several hosts agree, never fight, and own a unit together.

use anyhow::{Context, Result, ensure};
use lab::Lab;

use crate::support::looking::{
    gone_everywhere, main_pids, runs_everywhere, settled, sleeper, told, writes,
};

#[test]
fn directories_on_two_hosts_agree_and_own_units_together() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        same_files_agree(lab).context("the same file on both")?;
        the_last_change_wins(lab).context("different files")?;
        a_restart_publishes_nothing(lab).context("fleetd restarted on both")?;
        the_last_owner_destroys(lab).context("the file goes from one, then the other")
    });
}

/// Returns how many directories own the unit.
fn owners(lab: &Lab) -> Result<usize> {
    let prefix = "/_coreos.com/fleet/owners/both.service/";
    let keys = lab
        .member(1)
        .etcdctl(&["get", "--prefix", "--keys-only", prefix])?
        .ok()?;
    Ok(keys.lines().filter(|line| line.starts_with(prefix)).count())
}

fn put(lab: &Lab, host: usize, number: u32) -> Result<()> {
    lab.host(host)
        .write_file("/etc/fleet/units/both.service", sleeper(number))
}

fn same_files_agree(lab: &Lab) -> Result<()> {
    put(lab, 1, 1000)?;
    put(lab, 2, 1000)?;
    runs_everywhere(lab, "both.service", 1000)?;
    // One of them created it. The other one owns it too, which does not write the unit again.
    ensure!(writes(lab, "both.service")? == Some(1));
    ensure!(owners(lab)? == 2);
    let revision = settled(lab)?;
    lab.hosts().iter().try_for_each(|host| {
        host.sh("touch /etc/fleet/units/both.service")?
            .ok()
            .map(drop)
    })?;
    ensure!(
        settled(lab)? == revision,
        "two directories with the same file fight"
    );
    Ok(())
}

fn the_last_change_wins(lab: &Lab) -> Result<()> {
    for (host, number) in [(2, 1001), (1, 1002), (2, 1003)] {
        let before = writes(lab, "both.service")?.context("there is a unit")?;
        put(lab, host, number)?;
        runs_everywhere(lab, "both.service", number)?;
        // The update is one write, and the new stable revision another.
        let rolled_out = Some(before + 2);
        lab.wait_until(
            crate::support::looking::SOON,
            "the update is stable",
            || Ok(writes(lab, "both.service")? >= rolled_out),
        )?;
        ensure!(
            writes(lab, "both.service")? == rolled_out,
            "the stale copy was published"
        );
    }
    told(lab, "both.service: the registry has another content", true)?;
    // An older content is late, not new. The host owns the unit anyway, and its journal reports it.
    let pids = main_pids(lab, &["both.service"])?;
    put(lab, 1, 1001)?;
    lab.wait_until(
        crate::support::looking::SOON,
        "the older content is passed over",
        || {
            Ok(lab
                .host(1)
                .journal(50)?
                .contains("the registry has a newer revision; change the file to publish it"))
        },
    )?;
    settled(lab)?;
    ensure!(
        pids == main_pids(lab, &["both.service"])?,
        "an older content was rolled out"
    );
    told(lab, "both.service: the registry has a newer revision", true)?;
    put(lab, 1, 1003)?;
    told(lab, "/etc/fleet/units/", false)
}

fn a_restart_publishes_nothing(lab: &Lab) -> Result<()> {
    let before = writes(lab, "both.service")?;
    let pids = main_pids(lab, &["both.service"])?;
    for host in lab.hosts() {
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
    }
    told(lab, "Machines: 2", true)?;
    ensure!(
        writes(lab, "both.service")? == before,
        "a restart published again"
    );
    ensure!(
        pids == main_pids(lab, &["both.service"])?,
        "a restart touched the unit"
    );
    Ok(())
}

fn the_last_owner_destroys(lab: &Lab) -> Result<()> {
    let pids = main_pids(lab, &["both.service"])?;
    lab.host(2).sh("rm /etc/fleet/units/both.service")?.ok()?;
    lab.wait_until(
        crate::support::looking::SOON,
        "host 2 gives its ownership up",
        || Ok(owners(lab)? == 1),
    )?;
    ensure!(
        pids == main_pids(lab, &["both.service"])?,
        "the unit went with the first of two owners"
    );
    lab.host(1).sh("rm /etc/fleet/units/both.service")?.ok()?;
    gone_everywhere(lab, "both.service")
}
