//! A revision has to last on the first host before any other host takes it.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::trail::{self, Trail, Unit};
use super::{SOON, each_moved_once, rollout, settled, started, submit, until};
use crate::support::looking::sleeper;
use crate::support::workload::{conf, fleetd, fleetd_again, leader};

/// What every host has to last, in seconds: longer than fleetd needs to restart.
const SOAK: u32 = 5;

fn on_three_hosts(body: impl FnOnce(&Lab) -> Result<()>) {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        lab.install_fleet(|host| conf(lab, host))?;
        lab.hosts().iter().try_for_each(trail::install)?;
        lab.wait_until(SOON, "all machines are listed", || {
            let listed = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
            Ok(listed.ok()?.lines().count() == 3)
        })?;
        body(lab)
    });
}

#[test]
fn restarts_of_fleetd_in_a_soak_promote_and_lose_nothing() {
    on_three_hosts(|lab| {
        let name = "a.service";
        let version = |number| {
            let unit = Unit::plain(number).fleet("Global=true\nMaxUnavailable=1");
            unit.fleet(&format!("MinReadySec={SOAK}"))
        };
        started(lab, name, &version(1).file())?;
        let since = trail::now()?;
        submit(lab.host(1), name, &version(2).file())?;
        let first = first_up(lab, name, since)?;
        let pid = first.main_pid(name)?;
        restart(lab, first).context("the agent of the host that is watched")?;
        let leads = lab.host(leader(lab, first)?);
        restart(lab, leads).context("the leader")?;
        ensure!(settled(lab, lab.host(1), name)? == 2);
        ensure!(first.main_pid(name)? == pid, "it was restarted");
        let trail = Trail::of(lab, name, since)?;
        each_moved_once(&trail, 2)?;
        let (most, story) = trail.most_down();
        ensure!(most == 1, "{story}");
        // Whatever was restarted: each host lasted before the next one went.
        let ups = ups(lab, name, since)?;
        let soak = u64::from(SOAK) * 1_000_000;
        let lasted = ups.windows(2).all(|pair| pair[1] - pair[0] >= soak);
        ensure!(ups.len() == 3 && lasted, "{ups:?}\n{story}");
        let now = trail::now()?;
        ensure!(
            now - ups[2] >= soak,
            "promoted before the last host proved it"
        );

        // And one that does not last is not promoted by a restart either.
        let bad = version(3).then("sleep 3; exit 3").file();
        let since = trail::now()?;
        submit(lab.host(1), name, &bad)?;
        first_up(lab, name, since)?;
        let leads = lab.host(leader(lab, lab.host(1))?);
        restart(lab, leads)?;
        until(lab, lab.host(1), name, "it is rolled back", |status| {
            status["last"]["revision"] == 3 && status["last"]["ended"] == "rolled-back"
        })?;
        ensure!(settled(lab, lab.host(1), name)? == 2);
        let trail = Trail::of(lab, name, since)?;
        ensure!(trail.tried(3) == 1, "{}", trail.most_down().1);
        Ok(())
    });
}

/// When the unit came up on each host, in order.
fn ups(lab: &Lab, name: &str, since: u64) -> Result<Vec<u64>> {
    let mut ups = Vec::new();
    for host in lab.hosts() {
        let text = host.read_file(&format!("/srv/{name}"))?;
        for line in text.lines().filter(|line| line.contains(" up ")) {
            let at = line.split(' ').next().context("a time")?;
            ups.push(at.replace('.', "").parse()?);
        }
    }
    ups.retain(|at| *at >= since);
    ups.sort_unstable();
    Ok(ups)
}

fn first_up<'a>(lab: &'a Lab, name: &str, since: u64) -> Result<&'a Host> {
    let mut found = None;
    lab.wait_until(SOON, "a host has the update", || {
        let trail = Trail::of(lab, name, since)?;
        let mut started = trail.started();
        let up = started.find(|(_, versions)| !versions.is_empty());
        found = up.and_then(|(up, _)| lab.hosts().iter().find(|host| host.name() == up));
        Ok(found.is_some())
    })?;
    found.context("it is there")
}

fn restart(lab: &Lab, host: &Host) -> Result<()> {
    let pid = fleetd(host)?;
    host.sh("systemctl restart fleet.service")?.ok()?;
    fleetd_again(lab, host, pid)
}

/// A program that ends some seconds after its start.
fn dies(seconds: u32, again: &str) -> String {
    let command = format!("/bin/sh -c 'echo >> /srv/dies; sleep {seconds}; exit 1'");
    format!("[Service]\nRestart=always\n{again}\nExecStart={command}\n[X-Fleet]\nGlobal=true\n")
}

#[test]
fn a_program_that_dies_soon_is_tried_on_one_host() {
    on_three_hosts(|lab| {
        let name = "a.service";
        started(lab, name, &sleeper(1000))?;
        // With the second one, systemd starts it again long after the end of this test.
        for (revision, again) in [(2, "RestartSec=5"), (3, "RestartSec=600")] {
            submit(lab.host(1), name, &dies(3, again))?;
            until(lab, lab.host(2), name, "it is rolled back", |status| {
                status["last"]["revision"] == revision
            })?;
            ensure!(settled(lab, lab.host(1), name)? == 1);
            let told = rollout(lab.host(1), name)?["last"].clone();
            ensure!(told["ended"] == "rolled-back", "{told}");
            let ran = |host: &&Host| host.read_file("/srv/dies").is_ok();
            let tried: Vec<&Host> = lab.hosts().iter().filter(ran).collect();
            ensure!(tried.len() == 1, "{told}: it ran on {} hosts", tried.len());
            let id = &tried[0].machine_id()[..8];
            ensure!(told.to_string().contains(id), "{told}");
        }
        Ok(())
    });
}

/// Where the unit is broken before the update, whatever is done to it.
const NEEDS: &str = "ExecStartPre=/usr/bin/test -e /srv/ok\n";

#[test]
fn a_host_where_the_unit_is_broken_holds_no_update_up() {
    on_three_hosts(|lab| {
        let broken = lab.host(3);
        for host in &lab.hosts()[..2] {
            host.write_file("/srv/ok", "")?;
        }
        let unit = |number| {
            sleeper(number).replace("[Service]\n", &format!("[Service]\n{NEEDS}"))
                + "MaxUnavailable=1\nMinReadySec=1\nProgressDeadlineSec=60\n"
        };
        let updated = |name: &str, revision: u64| {
            let told = until(lab, lab.host(1), name, "it is over", |status| {
                status["phase"] == "stable" && status["last"]["revision"] == revision
            })?;
            ensure!(
                told["revision"] == revision && told["available"] == 2,
                "{told:#}"
            );
            ensure!(
                told["last"].to_string().contains(&broken.machine_id()[..8]),
                "{told:#}"
            );
            Ok(())
        };
        for (name, cordon) in [("plain.service", false), ("cordoned.service", true)] {
            submit(lab.host(1), name, &unit(1000))?;
            lab.wait_until(SOON, "it runs on two hosts and fails on one", || {
                let fails = broken.systemctl_show(name, "ActiveState")? == "failed";
                let runs = lab.hosts()[..2].iter().all(|host| host.is_active(name));
                Ok(fails && runs && rollout(lab.host(1), name)?["available"] == 2)
            })?;
            if cordon {
                lab.host(1)
                    .fleetctl(&["cordon", &broken.machine_id()])?
                    .ok()?;
            }
            let before = broken.read_file(&format!("/run/fleet/units/{name}"))?;
            submit(lab.host(1), name, &unit(1001))?;
            updated(name, 2).with_context(|| name.to_owned())?;
            let untouched = broken.read_file(&format!("/run/fleet/units/{name}"))? == before;
            ensure!(
                untouched == cordon,
                "{name}: a cordoned host keeps its revision"
            );
        }
        Ok(())
    });
}
