//! `cargo soak`: random faults on six real hosts with three etcd members, for an hour, while an
//! operator makes changes.
//!
//! Each round draws a fault and an operator's change in the middle of it. It repairs the fault,
//! waits until every host has the wanted state, and checks the hosts themselves for anything that
//! must never happen. The first violation ends the run, and prints the seed, the rounds so far and
//! the logs. `--write` writes the report to docs/soak.md.

mod checks;
mod costs;
mod faults;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Chance, FleetConf, Lab, repository, run, trail, write_page};

use crate::checks::Kept;
use crate::costs::Costs;
use crate::faults::Fault;
use crate::wanted::Wanted;

const HOSTS: usize = 6;
const MEMBERS: usize = 3;

/// The limit for a repeated command. All faults are repaired by then.
const REPAIR_LIMIT: Duration = Duration::from_secs(60);

struct Options {
    minutes: u64,
    seed: u64,
    write: bool,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: cargo soak [--minutes N] [--seed N] [--write]");
        return ExitCode::from(2);
    };
    let soaked = soak(&options).and_then(|report| {
        println!("{report}");
        if options.write {
            write_page("docs/soak.md", "cargo soak", &report)?;
        }
        Ok(())
    });
    match soaked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: --seed {}: {error:#}", options.seed);
            ExitCode::FAILURE
        }
    }
}

fn options() -> Option<Options> {
    let mut options = Options {
        minutes: 60,
        seed: 1,
        write: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--minutes" => options.minutes = arguments.next()?.parse().ok()?,
            "--seed" => options.seed = arguments.next()?.parse().ok()?,
            "--write" => options.write = true,
            _ => return None,
        }
    }
    Some(options)
}

/// Returns the configuration of every host. Leases are short, so that faults outlast them.
fn conf(lab: &Lab) -> FleetConf {
    lab.fleet_conf().line("agent_ttl=5s")
}

fn soak(options: &Options) -> Result<String> {
    let lab = Lab::builder().hosts(HOSTS).etcd(MEMBERS).start()?;
    lab.install_fleet(|_| conf(&lab))?;
    lab.wait_until(REPAIR_LIMIT, "all machines are listed", || {
        let listed = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
        Ok(listed.ok()?.lines().count() == HOSTS)
    })?;
    let mut chance = Chance::of(options.seed);
    let mut wanted = Wanted::start(&lab)?;
    let mut kept = Kept::default();
    kept.quiet(&lab, &wanted, None)?;
    let costs = Costs::of(&lab)?;

    let begun = Instant::now();
    let end = begun + Duration::from_secs(60 * options.minutes);
    let (mut faults, mut acts) = (BTreeMap::new(), BTreeMap::new());
    let (mut rounds, mut unanswered) = (0_usize, 0_usize);
    while Instant::now() < end {
        rounds += 1;
        let fault = Fault::draw(&mut chance, HOSTS, MEMBERS);
        let act = wanted.draw(&mut chance, HOSTS);
        eprintln!(
            "{:5.0} s: {rounds}: {fault:?}, {act:?}",
            begun.elapsed().as_secs_f64()
        );
        let since = trail::now()?;
        wanted.ask(&act);
        // Before the fault, so that the fault hits the effects of the change; else in the middle of
        // the fault.
        let before = chance.below(3) == 0;
        let ask = |chance: &mut Chance| {
            let on: Vec<_> = lab.hosts().iter().filter(|it| it.pid1().is_ok()).collect();
            wanted.carry_out(&act, &lab, chance.pick(&on))
        };
        let mut answer = if before { Some(ask(&mut chance)) } else { None };
        let struck = fault.strike(&lab).with_context(|| format!("{fault:?}"))?;
        if answer.is_none() {
            faults::while_it_lasts(&mut chance);
            answer = Some(ask(&mut chance));
        }
        faults::while_it_lasts(&mut chance);
        struck.repair(&lab).with_context(|| format!("{fault:?}"))?;
        if answer.is_none_or(|answer| answer.is_err()) {
            unanswered += 1;
            lab.wait_until(REPAIR_LIMIT, &format!("{act:?} is acknowledged"), || {
                wanted.carry_out(&act, &lab, lab.host(1)).map(|()| true)
            })?;
        }
        kept.quiet(&lab, &wanted, Some(since))
            .and_then(|()| kept.nothing_was_touched(&lab, &struck.rebooted, since))
            .with_context(|| format!("round {rounds}: {fault:?}, {act:?}"))
            .inspect_err(|_| {
                // Keeps the logs.
                let _ = lab.wait_until(Duration::ZERO, "all is well", || Ok(false));
            })?;
        *faults.entry(fault.kind()).or_insert(0_usize) += 1;
        *acts.entry(act.kind()).or_insert(0_usize) += 1;
        wanted.destroyed = BTreeSet::new();
    }
    let report = Report {
        options,
        rounds,
        unanswered,
        checked: kept.checked,
        faults,
        acts,
        costs: [costs, Costs::of(&lab)?],
    };
    report.text()
}

struct Report<'a> {
    options: &'a Options,
    rounds: usize,
    unanswered: usize,
    checked: usize,
    faults: BTreeMap<&'static str, usize>,
    acts: BTreeMap<&'static str, usize>,
    costs: [Costs; 2],
}

impl Report<'_> {
    fn text(&self) -> Result<String> {
        let say = |command: &[&str]| -> Result<String> {
            Ok(run(command)?.ok()?.lines().next().unwrap_or("").to_owned())
        };
        let top = repository().display().to_string();
        let commit = say(&["git", "-C", &top, "rev-parse", "--short", "HEAD"])?;
        let day = say(&["date", "--utc", "+%F"])?;
        let etcd = say(&["etcd", "--version"])?;
        let mut text = format!(
            "{day}, commit {commit}, {etcd}: `cargo soak --minutes {} --seed {}` on {HOSTS} hosts and {MEMBERS} etcd members.\n\
             **{} rounds, {} facts checked on the hosts, no rule broken.** {} commands got no acknowledgement while a fault \
             lasted, and were given again after it.\n",
            self.options.minutes, self.options.seed, self.rounds, self.checked, self.unanswered
        );
        for (what, counts) in [("fault", &self.faults), ("what people did", &self.acts)] {
            write!(text, "\n| {what} | rounds |\n|---|--:|\n")?;
            for (kind, count) in counts {
                writeln!(text, "| {kind} | {count} |")?;
            }
        }
        let [first, last] = &self.costs;
        write!(
            text,
            "\n| the fleetd that has the most, and the registry | at the start | at the end |\n|---|--:|--:|\n\
             | resident memory, MiB | {:.1} | {:.1} |\n| open files | {} | {} |\n| keys | {} | {} |\n",
            first.memory, last.memory, first.files, last.files, first.keys, last.keys
        )?;
        Ok(text)
    }
}
