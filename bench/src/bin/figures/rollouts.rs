//! Measures the duration of a rollout on many hosts, beyond the time that its budget alone
//! requires.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Lab, wait_until};

use crate::changes::everywhere;
use crate::figure::{self, Samples};
use crate::probe::{Probe, slow_unit_file};

const HOSTS: usize = 12;

/// The number of batches: each has a quarter of the hosts.
const BATCHES: f64 = 4.0;

/// The seconds until the unit itself reports that it is up.
const START: f64 = 1.0;

/// The limit for every wait.
const LIMIT: Duration = Duration::from_secs(60);

/// The silence after which a rollout is over. Reports are collected for 50 ms.
const QUIET: Duration = Duration::from_millis(500);

/// Updates a unit repeatedly, on hosts of its own.
pub(crate) fn measure(rounds: u32, samples: &mut Samples) -> Result<()> {
    let lab = Lab::builder().hosts(HOSTS).etcd(1).start()?;
    lab.install_fleet(|_| lab.fleet_conf())?;
    let first = lab.host(1);
    lab.wait_until(LIMIT, "all machines are listed", || {
        let machines = first.fleetctl(&["list-machines", "--no-legend"])?.ok()?;
        Ok(machines.lines().count() == HOSTS)
    })?;
    let probe = Probe::new(lab.hosts())?;
    let path = "/root/slow.service";
    first.write_file(path, slow_unit_file(0))?;
    first.fleetctl(&["start", "--wait", path])?.ok()?;
    let floor = floor(&lab)?;
    samples.add(figure::FLOOR_BATCH, floor);
    for version in 1..=rounds {
        first.write_file(path, slow_unit_file(version))?;
        let before = settled(&lab)?;
        probe.forget();
        let begun = Instant::now();
        first
            .fleetctl(&["start", "--replace", "--no-block", path])?
            .ok()?;
        let took = (probe.started(version, HOSTS)? - begun).as_secs_f64();
        samples.add(figure::ROLLOUT, took);
        samples.add(figure::ROLLOUT_RATIO, took / (BATCHES * START));
        samples.add(figure::ROLLOUT_FLOOR_RATIO, took / (BATCHES * floor));
        let writes = settled(&lab)? - before;
        samples.add(figure::ROLLOUT_WRITES, writes / HOSTS as f64);
    }
    Ok(())
}

/// Returns the time of systemd alone for one batch: for a unit outside fleet, after its new file
/// was written.
fn floor(lab: &Lab) -> Result<f64> {
    let batch = &lab.hosts()[..lab.hosts().len() / 4];
    for host in batch {
        let path = "/run/systemd/system/floor.service";
        host.write_file(path, slow_unit_file(0))?;
        host.sh("systemctl daemon-reload; systemctl start floor.service")?
            .ok()?;
        host.write_file(path, slow_unit_file(1))?;
    }
    let begun = Instant::now();
    let update = "systemctl daemon-reload; systemctl restart floor.service";
    everywhere(batch, &["sh", "-c", update])?;
    let took = begun.elapsed().as_secs_f64();
    everywhere(batch, &["systemctl", "stop", "floor.service"])?;
    Ok(took)
}

/// Returns the registry's revision, which counts commits, once nothing more is written.
fn settled(lab: &Lab) -> Result<f64> {
    let (mut last, mut since) = (revision(lab)?, Instant::now());
    wait_until(LIMIT, "nothing is written any more", || {
        let now = revision(lab)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(since.elapsed() >= QUIET)
    })?;
    Ok(last)
}

fn revision(lab: &Lab) -> Result<f64> {
    let answer = lab
        .member(1)
        .etcdctl(&["get", "nothing", "--write-out=fields"])?
        .ok()?;
    let revision = answer
        .lines()
        .find_map(|line| line.strip_prefix("\"Revision\" : "));
    Ok(revision.context("etcd tells no revision")?.parse()?)
}
