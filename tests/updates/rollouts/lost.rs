//! Hosts that are lost by their own update, or in the middle of it, take no other host with them.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};
use serde_json::Value;

use super::{SOON, rollout, settled, submit, until};
use crate::support::looking::sleeper;
use crate::support::workload::leader;

/// Writes down that it began on the host, and is not up before the host is lost.
const CUTS: &str = "ExecStartPre=/bin/sh -c 'echo >> /srv/%n.cut; sleep 60'\n";

/// Longer than a lease, so that the deadline does not come first.
const DEADLINE: &str = "MaxUnavailable=1\nProgressDeadlineSec=8\n";

fn on_hosts(count: usize, ttl: &str, body: impl FnOnce(&Lab) -> Result<()>) {
    Lab::builder().hosts(count).etcd(1).test(|lab| {
        // The first host leads.
        for host in lab.hosts() {
            let conf = lab.fleet_conf().metadata(&format!("host={}", host.name()));
            host.install_fleet(&conf.line(&format!("agent_ttl={ttl}")))?;
            lab.wait_until(SOON, "the first host leads", || {
                Ok(leader(lab, lab.host(1))? == 1)
            })?;
        }
        lab.wait_until(SOON, "all machines are listed", || {
            let listed = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
            Ok(listed.ok()?.lines().count() == count)
        })?;
        body(lab)
    });
}

/// A unit on the hosts with these numbers.
fn unit(number: u32, hosts: &[usize], service: &str) -> String {
    let place = |number: &usize| format!("MachineMetadata=host=n{number}\n");
    let places: String = hosts.iter().map(place).collect();
    sleeper(1000 + number).replace("[Service]\n", &format!("[Service]\n{service}"))
        + &places
        + DEADLINE
}

fn short(host: &Host) -> String {
    host.machine_id()[..8].to_owned()
}

/// Waits until an update takes one of the hosts down, and returns it.
fn first_cut<'a>(lab: &'a Lab, name: &str) -> Result<&'a Host> {
    lab.wait_until(SOON, &format!("{name}: a host takes the update"), || {
        Ok(cut(lab, name).next().is_some())
    })?;
    cut(lab, name).next().context("it is there")
}

/// The hosts where the update began.
fn cut<'a>(lab: &'a Lab, name: &str) -> impl Iterator<Item = &'a Host> {
    let path = format!("/srv/{name}.cut");
    let hosts = lab.hosts().iter();
    hosts.filter(move |host| host.read_file(&path).is_ok())
}

/// Waits until the update is rolled back, and checks that it says which host it lost, and took no
/// other one.
fn rolled_back(lab: &Lab, speaker: &Host, name: &str, lost: &Host) -> Result<()> {
    let told = until(lab, speaker, name, "it is rolled back", |status| {
        let phase = &status["phase"];
        phase == "rolling-back" || phase == "stable" && status["last"]["revision"] == 2
    })?;
    let history = super::answer(
        speaker,
        "GET",
        &format!("rollouts/{name}/history"),
        None,
        200,
    )?;
    ensure!(
        told["revision"] == 1,
        "it was promoted: {told:#}\n{history:#}"
    );
    let why = format!("{} went offline when it took revision 2", short(lost));
    ensure!(told.to_string().contains(&why), "{told:#}");
    let touched: Vec<&str> = cut(lab, name).map(Host::name).collect();
    ensure!(touched == [lost.name()], "{touched:?}");
    Ok(())
}

fn back(lab: &Lab, name: &str, hosts: &[usize]) -> Result<()> {
    ensure!(settled(lab, lab.host(2), name)? == 1);
    lab.wait_until(SOON, &format!("{name} runs as before"), || {
        Ok(hosts.iter().all(|host| lab.host(*host).is_active(name)))
    })
}

#[test]
fn an_update_that_loses_its_host_takes_no_other() {
    on_hosts(4, "3s", |lab| {
        let (alone, some, all) = ("alone.service", "some.service", "all.service");
        let places: [(&str, &[usize]); 3] = [(alone, &[4]), (some, &[2, 3]), (all, &[1, 2, 3, 4])];
        for (name, hosts) in places {
            submit(lab.host(1), name, &unit(1, hosts, ""))?;
        }
        for (name, _) in places {
            settled(lab, lab.host(1), name)?;
        }
        // One by its link, and another by its power.
        submit(lab.host(1), alone, &unit(2, &[4], CUTS))?;
        submit(lab.host(1), some, &unit(2, &[2, 3], CUTS))?;
        let unplugged = first_cut(lab, alone)?;
        unplugged.partition()?;
        let off = first_cut(lab, some)?;
        off.power_off()?;
        rolled_back(lab, lab.host(1), alone, unplugged).context("the only host")?;
        rolled_back(lab, lab.host(1), some, off).context("one of several hosts")?;
        unplugged.heal()?;
        off.power_on()?;
        back(lab, alone, &[4])?;
        back(lab, some, &[2, 3])?;
        settled(lab, lab.host(1), all)?;

        // The leader's own.
        submit(lab.host(1), all, &unit(2, &[1, 2, 3, 4], CUTS))?;
        let lost = first_cut(lab, all)?;
        ensure!(lost.number() == 1, "{} went first", lost.name());
        lost.partition()?;
        rolled_back(lab, lab.host(2), all, lost).context("the leader's host")?;
        lost.heal()?;
        back(lab, all, &[1, 2, 3, 4])
    });
}

/// What the rollout waits for.
fn waits(status: &Value) -> String {
    status["waits"].to_string()
}

#[test]
fn a_host_that_shuts_down_counts_at_once() {
    // A lease ends long after the host is back.
    on_hosts(3, "120s", |lab| {
        let name = "a.service";
        let version = |number: u32, service: &str| {
            sleeper(1000 + number).replace("[Service]\n", &format!("[Service]\n{service}"))
                + "MaxUnavailable=1\nMinReadySec=1\n"
        };
        submit(lab.host(1), name, &version(1, ""))?;
        settled(lab, lab.host(1), name)?;
        // The first takes it at once, the second not before it may.
        let slow = "ExecStartPre=/bin/sh -c 'until test -e /srv/go; do sleep 0.1; done'\n";
        lab.host(1).write_file("/srv/go", "")?;
        submit(lab.host(1), name, &version(2, slow))?;
        let second = lab.host(2);
        lab.wait_until(SOON, "the second host takes it", || {
            Ok(second.systemctl_show(name, "SubState")? == "start-pre")
        })?;
        let third = lab.host(3);
        let before = third.main_pid(name)?;
        lab.host(1).shut_down()?;
        second.write_file("/srv/go", "")?;
        third.write_file("/srv/go", "")?;
        until(lab, second, name, "the second host has it", |status| {
            status["available"] == 2 && status["upToDate"] == 1
        })?;
        let told = until(
            lab,
            second,
            name,
            "it waits for the host that is off",
            |status| waits(status).contains("it is shutting down"),
        )?;
        ensure!(told["phase"] == "rolling", "{told:#}");
        ensure!(third.main_pid(name)? == before, "it went on: {told:#}");
        let explained = second.fleetctl(&["explain", name])?.ok()?;
        ensure!(explained.contains("it is shutting down"), "{explained}");
        lab.host(1).power_on()?;
        ensure!(settled(lab, second, name)? == 2);
        let told = rollout(second, name)?;
        ensure!(told["last"]["ended"] == "done", "{told:#}");

        // A restart or stop of fleetd is no shutdown.
        third
            .sh("systemctl restart fleet.service; systemctl stop fleet.service")?
            .ok()?;
        let explained = second.fleetctl(&["explain", name])?.ok()?;
        ensure!(!explained.contains("shutting down"), "{explained}");
        third.sh("systemctl start fleet.service")?.ok().map(drop)
    });
}
