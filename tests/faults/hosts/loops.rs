//! Shows that fleetd stays responsive while hundreds of units crash in a loop, and that its journal
//! and the registry stay quiet.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::install;
use crate::support::workload::{SOON, fleet_journal, works};

/// Each of them starts every ten seconds. With one second, PID 1 itself took minutes to answer on
/// two busy cores.
const UNITS: usize = 300;

/// The time for which the loops are watched.
const WATCHED: Duration = Duration::from_secs(4);

#[test]
fn hundreds_of_crashing_units_delay_and_flood_nothing() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        install(lab)?;
        let host = lab.host(1);
        host.sh(&format!(
            "mkdir /root/loops; cd /root/loops; for number in $(seq {UNITS}); do printf '%s\\n' '[Unit]' StartLimitIntervalSec=0 '[Service]' ExecStart=/bin/false Restart=always RestartSec=10s '[X-Fleet]' Global=true > loop$number.service; done; fleetctl start --no-block loop*.service"
        ))?
        .ok()?;
        lab.wait_until(SOON * 3, "all of them were started, and loop", || {
            let marks: serde_json::Value = serde_json::from_str(&host.read_file("/run/fleet/marks.json")?)?;
            let done = marks["starting"].as_array().is_some_and(Vec::is_empty);
            let units = marks["units"].as_object().map_or(0, |units| units.values().filter(|unit| !unit["launched"].is_null()).count());
            Ok(done && units == UNITS && restarts(host)? >= UNITS as u64)
        })?;
        let before = look(lab, host)?;
        let started = Instant::now();
        std::thread::sleep(WATCHED);
        let after = look(lab, host)?;
        eprintln!(
            "in {:?}: fleetd used {} ms of CPU, logged {} lines, the registry saw {} writes",
            started.elapsed(),
            after.cpu - before.cpu,
            after.lines - before.lines,
            after.revision - before.revision,
        );
        // There are thousands of crashes. A line or a write for each unit would make hundreds.
        ensure!(after.lines - before.lines < 50, "its journal floods:\n{}", fleet_journal(host)?);
        ensure!(after.revision - before.revision < 150, "its reports flood the registry");
        let started = Instant::now();
        works(lab, "beside-loops.service")?;
        eprintln!("another unit came and went within {:?}", started.elapsed());
        let status = host.fleetctl(&["status", "loop7.service"])?.stdout;
        ensure!(status.contains(" restart"), "{status}");
        host.sh("fleetctl destroy loop*.service")?.ok()?;
        lab.wait_until(SOON * 2, "all are gone", || {
            Ok(host.sh("systemctl list-units --all --no-legend 'loop*'")?.stdout.is_empty())
        })?;
        works(lab, "after.service")
    });
}

struct Look {
    /// Milliseconds.
    cpu: u64,
    lines: usize,
    revision: u64,
}

fn look(lab: &Lab, host: &Host) -> Result<Look> {
    let cpu: u64 = host
        .systemctl_show("fleet.service", "CPUUsageNSec")?
        .parse()?;
    let status = lab
        .member(1)
        .etcdctl(&["get", "none", "--write-out=json"])?
        .ok()?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    Ok(Look {
        cpu: cpu / 1_000_000,
        lines: fleet_journal(host)?.lines().count(),
        revision: status["header"]["revision"].as_u64().unwrap_or_default(),
    })
}

/// Returns how often systemd restarted all units together. No unit is left out.
fn restarts(host: &Host) -> Result<u64> {
    let shown = host
        .sh("systemctl show --property=NRestarts --value 'loop*.service'")?
        .ok()?;
    Ok(shown
        .split_whitespace()
        .filter_map(|count| count.parse::<u64>().ok())
        .sum())
}
