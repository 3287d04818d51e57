//! Shows that changes acknowledged right before etcd fails are not lost, and that everything
//! converges at once when it is back.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::{RETURN, clean, told};
use crate::support::looking::refused;
use crate::support::workload::{
    self, SOON, active, fleet_journal, fleetd, launch, status_text, untouched,
};

/// A variable with the number of seconds for which etcd is down. Two minutes show the same, later.
const OUTAGE: &str = "FLEET_TESTS_OUTAGE";

const GONE: &[&str] = &["goes.service", "stops.service", "last.service"];
const THERE: &[&str] = &["before.service", "after.service"];

#[test]
fn changes_around_an_etcd_outage_reach_every_host() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let seconds = match env::var(OUTAGE) {
            Ok(seconds) => seconds.parse().context("FLEET_TESTS_OUTAGE must be a number")?,
            Err(_) => 12,
        };
        let (speaker, unaware, etcd) = (lab.host(1), lab.host(3), lab.member(1));
        let before = workload::start(lab)?;
        for unit in GONE {
            launch(speaker, unit)?;
            active(lab, unit, lab.hosts())?;
        }
        // This host cannot have received the last acknowledged changes.
        unaware.sh("systemctl stop fleet.service")?.ok()?;
        for unit in THERE {
            workload::write(speaker, unit, "[Service]\nExecStart=/bin/sleep infinity\n")?;
        }
        speaker
            .sh("cd /root; fleetctl start --no-block before.service && fleetctl destroy goes.service \
                 && fleetctl stop --no-block stops.service")?
            .ok()?;
        etcd.kill()?;
        unaware.sh("systemctl start fleet.service")?.ok()?;
        let pids = lab.hosts().iter().map(fleetd).collect::<Result<Vec<_>>>()?;
        let down_since = Instant::now();
        meanwhile(lab)?;
        while down_since.elapsed() < Duration::from_secs(seconds) {
            untouched(lab, &before, "an outage of etcd")?;
            ensure!(unaware.is_active("goes.service") && unaware.is_active("stops.service"));
            ensure!(lab.hosts().iter().all(|host| host.is_active("last.service")));
            thread::sleep(Duration::from_secs(1));
        }
        meanwhile(lab)?;
        let tells = fleet_journal(speaker)?;
        let lines = tells.lines().filter(|line| line.contains("registry unavailable"));
        let lines: Vec<&str> = lines.collect();
        ensure!(lines.len() < 12, "the journal fills up:\n{}", lines.join("\n"));

        etcd.start()?;
        etcd.await_healthy()?;
        let back = Instant::now();
        lab.wait_until(SOON, "a change is taken right after the return", || {
            let change = "cd /root; fleetctl start --no-block after.service && fleetctl destroy last.service";
            Ok(speaker.sh(change)?.code == 0)
        })?;
        lab.wait_until(SOON, "every change from before and after has arrived everywhere", || {
            let all = |units: &[&str], up: bool| {
                let mut pairs = units.iter().flat_map(|unit| lab.hosts().iter().map(move |it| (it, unit)));
                pairs.all(|(host, unit)| host.is_active(unit) == up)
            };
            Ok(all(THERE, true) && all(GONE, false))
        })?;
        let took = back.elapsed();
        eprintln!("{seconds} s without etcd; all changes everywhere {took:.1?} after its return");
        ensure!(took < RETURN, "it took {took:?}");
        clean(lab)?;
        for (host, pid) in lab.hosts().iter().zip(pids) {
            ensure!(fleetd(host)? == pid, "fleetd of {} did not outlive it", host.name());
            ensure!(fleet_journal(host)?.contains("following the registry"));
        }
        untouched(lab, &before, "the return of etcd")
    });
}

/// Checks what fleet reports while etcd is down, and that it accepts nothing that could be lost.
fn meanwhile(lab: &Lab) -> Result<()> {
    let away = "the registry is away; units run on as they are: registry unavailable: etcd http://10.99.0.1:2379: ";
    for host in lab.hosts() {
        told(lab, host, away)?;
        ensure!(
            status_text(host)?.contains("units ready"),
            "how units are is told, too"
        );
    }
    let asked: [(&Host, &[&str]); 4] = [
        (lab.host(1), &["status"]),
        (lab.host(2), &["list-machines"]),
        (lab.host(3), &["stop", "last.service"]),
        (lab.host(1), &["destroy", "last.service"]),
    ];
    for (host, command) in asked {
        refused(
            &host.fleetctl(command)?,
            1,
            "registry unavailable: etcd http://10.99.0.1:2379: ",
        )?;
    }
    Ok(())
}
