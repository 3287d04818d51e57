//! Shows that a fleetd that is killed repeatedly during many changes loses nothing and repeats
//! nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lab::{Chance, Host, Lab};

use super::install;
use crate::support::workload::{SOON, active, write};

const CHANGES: usize = 40;

/// A unit that writes a line at each start and each stop, with the revision's number.
fn content(revision: u32) -> String {
    format!(
        "[Service]\nExecStart=/bin/sh -c 'echo start {revision} >> /srv/%n; exec sleep infinity'\nExecStopPost=/bin/sh -c 'echo stop {revision} >> /srv/%n'\n[X-Fleet]\nUpdateStrategy=all\n"
    )
}

fn seed() -> Result<u64> {
    match std::env::var("FLEET_TEST_SEED") {
        Ok(seed) => seed.parse().context("FLEET_TEST_SEED must be a number"),
        Err(_) => Ok(SystemTime::UNIX_EPOCH.elapsed()?.as_secs()),
    }
}

#[test]
fn fleetd_killed_at_random_loses_and_repeats_nothing() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let seed = seed()?;
        eprintln!("FLEET_TEST_SEED={seed}");
        for host in lab.hosts() {
            // The usual two seconds until the next start would make this too calm.
            host.write_file(
                "/etc/systemd/system/fleet.service.d/test.conf",
                "[Service]\nRestartSec=100ms\n",
            )?;
        }
        install(lab)?;
        order(lab, "keep.service", Some(1))?;
        active(lab, "keep.service", lab.hosts())?;

        let over = AtomicBool::new(false);
        let wanted = thread::scope(|scope| {
            let killer = scope.spawn(|| kill_on(lab, &mut Chance::of(seed), &over));
            let wanted = change(lab, &mut Chance::of(!seed));
            over.store(true, Ordering::Relaxed);
            let kills = killer
                .join()
                .map_err(|_| anyhow::anyhow!("the killer panicked"))??;
            eprintln!("{kills} kills");
            ensure!(kills > 5, "only {kills} kills");
            wanted
        })?;

        lab.wait_until(SOON * 2, "every host agrees with what was ordered", || {
            for (name, unit) in &wanted {
                for host in lab.hosts() {
                    let state = host.systemctl_show(name, "ActiveState")?;
                    let trail = host.read_file(&format!("/srv/{name}")).unwrap_or_default();
                    let last = trail.lines().last().unwrap_or_default();
                    match unit.now {
                        Some(revision) => ensure!(
                            state == "active" && last == format!("start {revision}"),
                            "{name} on {} is {state}, wanted {revision}:\n{trail}",
                            host.name()
                        ),
                        None => ensure!(
                            state == "inactive"
                                && !host.path(&format!("/run/fleet/units/{name}")).exists(),
                            "{name} on {} is {state}, though it is destroyed",
                            host.name()
                        ),
                    }
                }
            }
            Ok(true)
        })?;
        let files = lab
            .host(1)
            .fleetctl(&["list-unit-files", "--no-legend", "--fields=unit"])?
            .ok()?;
        let kept: Vec<&str> = wanted
            .iter()
            .filter(|(_, unit)| unit.now.is_some())
            .map(|(name, _)| &**name)
            .collect();
        ensure!(
            files
                .split_whitespace()
                .eq(["keep.service"].into_iter().chain(kept)),
            "the registry has\n{files}"
        );
        for host in lab.hosts() {
            judge(host, &wanted)?;
        }
        Ok(())
    });
}

#[derive(Default)]
struct Unit {
    /// The revision that should run. `None` once the unit is destroyed.
    now: Option<u32>,
    newest: u32,
    /// The number of orders that stop what runs.
    stops: usize,
}

/// Gives random orders, and returns them.
fn change(lab: &Lab, chance: &mut Chance) -> Result<BTreeMap<String, Unit>> {
    let mut units: BTreeMap<String, Unit> = BTreeMap::new();
    for _ in 0..CHANGES {
        let name = format!("u{}.service", chance.below(8));
        let unit = units.entry(name.clone()).or_default();
        let destroy = unit.now.is_some() && chance.below(3) == 0;
        unit.stops += usize::from(unit.now.is_some());
        unit.now = (!destroy).then(|| {
            unit.newest += 1;
            unit.newest
        });
        order(lab, &name, unit.now)?;
        thread::sleep(Duration::from_millis(chance.below(200) as u64));
    }
    Ok(units)
}

/// Orders that the revision runs, or with `None` that the unit is destroyed. The fleetd that gets
/// the order may be killed meanwhile.
fn order(lab: &Lab, name: &str, revision: Option<u32>) -> Result<()> {
    let host = lab.host(1);
    let command = match revision {
        Some(revision) => {
            write(host, name, &content(revision))?;
            format!("cd /root; fleetctl start --no-block --replace {name}")
        }
        None => format!("fleetctl destroy {name}"),
    };
    lab.wait_until(SOON, &format!("`{command}` is answered"), || {
        Ok(host.sh(&command)?.code == 0)
    })
}

/// Kills fleetds until `over` is set, and returns how many.
fn kill_on(lab: &Lab, chance: &mut Chance, over: &AtomicBool) -> Result<u32> {
    let mut kills = 0;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100 + chance.below(900) as u64));
        let host = &lab.hosts()[chance.below(2)];
        let pid = host.main_pid("fleet.service")?;
        if pid != 0 && host.sh(&format!("kill -KILL {pid}"))?.code == 0 {
            kills += 1;
        }
    }
    Ok(kills)
}

/// Checks that nothing was stopped without an order, and no revision was started twice.
fn judge(host: &Host, wanted: &BTreeMap<String, Unit>) -> Result<()> {
    let kept = host.read_file("/srv/keep.service")?;
    ensure!(
        kept == "start 1\n",
        "{}: the unit without orders:\n{kept}",
        host.name()
    );
    for (name, unit) in wanted {
        let trail = host.read_file(&format!("/srv/{name}")).unwrap_or_default();
        let count = |text: &str| trail.lines().filter(|line| *line == text).count();
        for revision in 1..=unit.newest {
            ensure!(
                count(&format!("start {revision}")) <= 1,
                "{}: revision {revision} of {name} ran twice:\n{trail}",
                host.name()
            );
        }
        let stops = trail
            .lines()
            .filter(|line| line.starts_with("stop"))
            .count();
        ensure!(
            stops <= unit.stops,
            "{}: {name} was stopped {stops} times, by {} orders:\n{trail}",
            host.name(),
            unit.stops
        );
    }
    Ok(())
}
