//! `cargo figures`: the speed and the cost of fleet, on three real hosts with one etcd, and of
//! rollouts on twelve.
//!
//! Prints a table; `--write` also writes it to docs/figures.md. It takes about five minutes.
//! `--quick` measures everything three times and skips the idle minute: enough to judge a change of
//! the code. `--crowded` instead measures one host with a thousand units, for docs/crowded.md.

mod changes;
mod crowded;
mod figure;
mod probe;
mod rollouts;
mod standing;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{Lab, write_page};

use crate::changes::Changes;
use crate::figure::Samples;
use crate::probe::Probe;

/// The limit for the cluster's start.
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let (mut write, mut quick, mut crowded) = (false, false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--write" => write = true,
            "--quick" => quick = true,
            "--crowded" => crowded = true,
            _ => {
                eprintln!("usage: cargo figures [--crowded] [--quick] [--write]");
                return ExitCode::from(2);
            }
        }
    }
    let (document, page) = if crowded {
        (
            "docs/crowded.md",
            crowded::measure(if quick { 1 } else { 3 }),
        )
    } else {
        ("docs/figures.md", measure(quick))
    };
    let written = page.and_then(|page| {
        println!("{page}");
        if write {
            write_page(document, "cargo figures", &page)?;
        }
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(quick: bool) -> Result<String> {
    let rounds = if quick { 3 } else { 11 };
    let begun = Instant::now();
    let lab = Lab::builder().hosts(3).etcd(1).start()?;
    lab.install_fleet(|_| lab.fleet_conf())?;
    lab.wait_until(LIMIT, "all machines are listed", || {
        let machines = lab
            .host(1)
            .fleetctl(&["list-machines", "--no-legend"])?
            .ok()?;
        Ok(machines.lines().count() == lab.hosts().len())
    })?;
    let probe = Probe::new(lab.hosts())?;
    let mut samples = Samples::default();
    let step = |what: &str| eprintln!("{:4.0} s: {what}", begun.elapsed().as_secs_f64());

    let mut changes = Changes {
        lab: &lab,
        probe: &probe,
        samples: &mut samples,
    };
    step("floors");
    changes.floors(rounds)?;
    step("one unit");
    (0..rounds).try_for_each(|round| changes.one_unit(round))?;
    step("metadata");
    changes.metadata(rounds)?;
    step("many units");
    (0..rounds).try_for_each(|round| changes.many_units(round))?;
    step("a hundred units");
    standing::populate(&lab)?;
    (0..rounds).try_for_each(|_| standing::processes(&lab, &mut samples))?;
    if !quick {
        step("idle");
        standing::idle(&lab, &mut samples)?;
    }
    step("reboots");
    (0..rounds).try_for_each(|_| standing::reboot(&lab, &mut samples))?;
    step("reboots in the dark");
    standing::dark_reboots(&lab, rounds, &mut samples)?;
    step("comments");
    standing::comments(&lab, &mut samples)?;
    step("leaders");
    (0..rounds).try_for_each(|_| standing::leader(&lab, &mut samples))?;
    let machine = figure::machine(&lab)?;
    drop(lab);
    step("rollouts");
    rollouts::measure(if quick { 3 } else { 5 }, &mut samples)?;
    step("done");

    Ok(format!("{machine}\n\n{}", samples.table()))
}
