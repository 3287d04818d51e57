//! The checks on the hosts: at quiet the wanted state, and meanwhile nothing that must never
//! happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::trail::Trail;
use lab::{Host, Lab};

use crate::wanted::{BUDGET, Wanted, unit};

/// The limit for reaching the wanted state. A rollback that waits for its deadline takes a minute.
const QUIET: Duration = Duration::from_secs(240);

/// Units that no fault except a reboot may touch, and that are never updated.
const CONTROLS: [&str; 2] = ["control.service", "stays.service"];

/// The runs of untouchable units, which each host must keep until it reboots.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    runs: BTreeMap<(usize, String), String>,
    /// The number of boots of each host.
    boots: BTreeMap<usize, usize>,
    /// The number of single facts that were checked.
    pub(crate) checked: usize,
}

/// The properties of units, by name.
struct Shown(BTreeMap<String, BTreeMap<String, String>>);

impl Shown {
    fn of(host: &Host, units: &BTreeSet<String>) -> Result<Self> {
        let names: Vec<&str> = units.iter().map(String::as_str).collect();
        let show = [
            "systemctl",
            "show",
            "--property=Id,LoadState,ActiveState,InvocationID,NRestarts,Description,MainPID",
            "--",
        ];
        let text = host.exec(&[&show[..], &names].concat())?.ok()?;
        let blocks = text.split("\n\n").map(|block| {
            let pairs = block.lines().filter_map(|line| line.split_once('='));
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect::<BTreeMap<String, String>>()
        });
        Ok(Self(
            blocks
                .filter_map(|block| Some((block.get("Id")?.clone(), block)))
                .collect(),
        ))
    }

    fn get(&self, unit: &str, property: &str) -> &str {
        let unit = self.0.get(unit);
        unit.and_then(|unit| unit.get(property))
            .map_or("", String::as_str)
    }

    fn is(&self, host: &Host, unit: &str, property: &str, wanted: &str) -> Result<()> {
        let found = self.get(unit, property);
        ensure!(
            found == wanted,
            "{}: {property} of {unit} is `{found}`, not `{wanted}`",
            host.name()
        );
        Ok(())
    }
}

impl Kept {
    /// Waits until every host has the wanted state.
    pub(crate) fn quiet(&mut self, lab: &Lab, wanted: &Wanted, before: Option<u64>) -> Result<()> {
        lab.wait_until(QUIET, "every host is as wanted", || {
            let mut checked = 0;
            for host in lab.hosts() {
                checked += self.is_as_wanted(host, wanted)?;
            }
            let machines = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
            ensure!(
                machines.clone().ok()?.lines().count() == lab.hosts().len(),
                "list-machines says:\n{}",
                machines.stdout
            );
            ensure!(web_rests(lab)?, "an update of web.service goes on");
            self.checked += checked;
            Ok(true)
        })?;
        if before.is_none() {
            for host in lab.hosts() {
                self.boots.insert(host.number(), 1);
                self.remember(host)?;
            }
        }
        Ok(())
    }

    fn is_as_wanted(&self, host: &Host, wanted: &Wanted) -> Result<usize> {
        let changing: Vec<String> = wanted
            .units
            .keys()
            .chain(&wanted.destroyed)
            .map(|number| unit(*number))
            .collect();
        let fixed = [
            "fleet.service",
            "web.service",
            "tagged.service",
            "dropped.service",
            "foreign.service",
            "loops.service",
            "once.service",
        ];
        let names = CONTROLS
            .iter()
            .chain(&fixed)
            .map(|name| (*name).to_owned())
            .chain(changing)
            .collect();
        let shown = Shown::of(host, &names)?;
        let active = |unit: &str| shown.is(host, unit, "ActiveState", "active");
        let gone = |unit: &str| shown.is(host, unit, "LoadState", "not-found");
        for name in CONTROLS {
            active(name)?;
        }
        for name in ["fleet.service", "web.service", "foreign.service"] {
            active(name)?;
        }
        shown.is(host, "loops.service", "LoadState", "loaded")?;
        for (number, runs) in &wanted.units {
            let name = unit(*number);
            if *runs {
                active(&name)?;
            } else {
                shown.is(host, &name, "LoadState", "loaded")?;
                shown.is(host, &name, "ActiveState", "inactive")?;
            }
        }
        for number in &wanted.destroyed {
            gone(&unit(*number))?;
        }
        if wanted.labelled.contains(&host.number()) {
            active("tagged.service")?;
        } else {
            gone("tagged.service")?;
        }
        match wanted.dropped {
            Some(version) => {
                active("dropped.service")?;
                let said = format!("version {version}");
                shown.is(host, "dropped.service", "Description", &said)?;
            }
            None => gone("dropped.service")?,
        }
        let trail = host.read_file("/srv/web.service").unwrap_or_default();
        let last = trail.lines().rfind(|line| line.contains(" up "));
        ensure!(
            last.is_some_and(|line| line.ends_with(&format!(" up {}", wanted.web))),
            "{}: web.service came up last as {last:?}, not as version {}",
            host.name(),
            wanted.web
        );
        let once = runs(host)?;
        let boots = self.boots.get(&host.number()).copied().unwrap_or(1);
        ensure!(
            once >= boots,
            "{}: once.service ran {once} times in {boots} boots",
            host.name()
        );
        Ok(names.len() + 2)
    }

    fn remember(&mut self, host: &Host) -> Result<()> {
        for (name, run) in untouchable(host)? {
            self.runs.insert((host.number(), name), run);
        }
        Ok(())
    }

    /// Checks what must never have happened since the last check. `rebooted` are the hosts that
    /// went down for reasons other than fleet.
    pub(crate) fn nothing_was_touched(
        &mut self,
        lab: &Lab,
        rebooted: &BTreeSet<usize>,
        since: u64,
    ) -> Result<()> {
        for host in lab.hosts() {
            let number = host.number();
            if rebooted.contains(&number) {
                *self.boots.entry(number).or_default() += 1;
                self.remember(host)?;
            }
            for (name, run) in untouchable(host)? {
                let before = self.runs.get(&(number, name.clone()));
                ensure!(
                    before == Some(&run),
                    "{} of {} was touched: {before:?} is now {run}",
                    name,
                    host.name()
                );
                self.checked += 1;
            }
            let (once, boots) = (runs(host)?, self.boots.get(&number).copied().unwrap_or(1));
            ensure!(
                once == boots,
                "{}: once.service ran {once} times in {boots} boots",
                host.name()
            );
            self.checked += 1;
        }
        let stayed: Vec<&Host> = lab
            .hosts()
            .iter()
            .filter(|host| !rebooted.contains(&host.number()))
            .collect();
        let (most, story) = Trail::of(lab, "web.service", since)?
            .only(&stayed)
            .most_down();
        self.checked += 1;
        ensure!(
            most <= BUDGET,
            "{most} hosts were without web.service at once, {BUDGET} may be:\n{story}"
        );
        Ok(())
    }
}

/// Returns the runs of units that only a reboot may touch.
fn untouchable(host: &Host) -> Result<Vec<(String, String)>> {
    let mut names: BTreeSet<String> = CONTROLS.iter().map(|name| (*name).to_owned()).collect();
    // On every other host, that unit is fleet's.
    if host.number() == 2 {
        names.insert("foreign.service".to_owned());
    }
    let shown = Shown::of(host, &names)?;
    let run = |name: &String| {
        let [run, pid, restarts] =
            ["InvocationID", "MainPID", "NRestarts"].map(|property| shown.get(name, property));
        (
            name.clone(),
            format!("run {run}, pid {pid}, restarted {restarts} times"),
        )
    };
    Ok(names.iter().map(run).collect())
}

fn runs(host: &Host) -> Result<usize> {
    Ok(host
        .read_file("/srv/once")
        .context("once.service never ran")?
        .lines()
        .count())
}

fn web_rests(lab: &Lab) -> Result<bool> {
    let output = lab
        .host(1)
        .fleetctl(&["rollout", "status", "web.service"])?;
    match output.code {
        0 | 7 => Ok(true),
        5 | 6 => Ok(false),
        _ => bail!("{}", output.ok().expect_err("failed")),
    }
}
