//! `cargo scale`: the cost of thousands of machines on one etcd, and how it grows.
//!
//! It runs the real agent, engine, registry and etcd store. Each agent has a connection of its own
//! and a systemd in memory. In the same minutes, bare clients of etcd do the smallest possible
//! work: they all receive one put, and each puts one value back. Prints tables; `--write` also
//! writes them with plots to docs/. docs/scale.md explains how to read them.

mod awaited;
mod bare;
mod changes;
mod etcd;
mod figures;
mod fleet;
mod growth;
mod hub;
mod line;
mod others;
mod page;
mod plot;
mod process;
mod proxy;
mod reads;
mod standing;
mod workers;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::changes::Changes;
use crate::etcd::Etcd;
use crate::figures::{Samples, Size};
use crate::fleet::Fleet;
use crate::hub::Hub;
use crate::others::Others;
use crate::proxy::Proxy;
use crate::workers::Workers;

const USAGE: &str = "usage: cargo scale [--machines 100,1000,5000,10000] [--units 10,100] [--quick] [--only join|changes|idle|storms|reads|others|growth,...] [--proxy] [--write]";

/// The parts that `--only` accepts. All machines join in any case.
const PARTS: [&str; 7] = [
    "join", "changes", "idle", "storms", "reads", "others", "growth",
];

/// The size at which growth is measured: once, because it takes minutes.
const GROWS: Size = (1000, 10);

/// The argument for printing the samples as the lines of [`Samples::raw`].
const RAW: &str = "--raw";

/// The number of agents among other machines.
const AGENTS: usize = 100;

/// The largest number of units in all. Larger sizes take more time and memory than they are worth.
const UNITS_MAX: usize = 100_000;

/// The memory for one machine, most of it in etcd: the largest seen with hundreds of units on each,
/// or in a storm.
const MEMORY: u64 = 1 << 20;

/// The measurements, and their extent.
struct Plan {
    machines: Vec<usize>,
    units: Vec<usize>,
    rounds: usize,
    /// The number of rounds with a rolling update.
    rolls: usize,
    idle: Duration,
    /// The measured parts, as named by `--only`.
    parts: Vec<String>,
    /// Whether the engine is a process of its own, and fleetctl is measured.
    whole: bool,
    /// Whether the machines reach etcd through its gRPC proxy.
    proxy: bool,
    write: bool,
    /// Whether it is one of several sizes, whose samples another process tabulates.
    raw: bool,
}

impl Plan {
    /// Returns the sizes to measure.
    fn sizes(&self) -> impl Iterator<Item = Size> {
        let units = self.units.iter();
        let sizes = units.flat_map(|units| self.machines.iter().map(|it| (*it, *units)));
        sizes.filter(|(machines, units)| machines * units <= UNITS_MAX)
    }

    fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|it| it == part)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, endpoint, socket] = &arguments[..]
        && argument == hub::ARGUMENT
    {
        return ended(hub::main(endpoint, Path::new(socket)));
    }
    match parse(&arguments) {
        Ok(plan) => ended(run(&plan)),
        Err(error) => {
            eprintln!("scale: {error:#}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Plan> {
    let mut plan = Plan {
        machines: vec![100, 1000, 5000, 10_000],
        units: vec![10, 100],
        rounds: 7,
        rolls: 3,
        idle: Duration::from_secs(60),
        parts: Vec::new(),
        whole: true,
        proxy: false,
        write: false,
        raw: false,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut list = || {
            let list = arguments.next();
            list.with_context(|| format!("{argument} of what?"))
        };
        match argument.as_str() {
            "--machines" => plan.machines = numbers(list()?)?,
            "--units" => plan.units = numbers(list()?)?,
            "--only" => plan.parts = parts(list()?)?,
            "--quick" => (plan.rounds, plan.rolls, plan.idle) = (3, 1, Duration::from_secs(10)),
            "--proxy" => plan.proxy = true,
            "--write" => plan.write = true,
            RAW => plan.raw = true,
            other => bail!("{other} is no argument"),
        }
    }
    Ok(plan)
}

fn parts(list: &str) -> Result<Vec<String>> {
    let part = |text: &str| {
        ensure!(PARTS.contains(&text), "{text} is nothing that is measured");
        Ok(text.to_owned())
    };
    list.split(',').map(part).collect()
}

fn numbers(list: &str) -> Result<Vec<usize>> {
    let number = |text: &str| {
        let number = text.parse().ok().filter(|number| *number > 0);
        number.with_context(|| format!("{text} is no number of things"))
    };
    list.split(',').map(number).collect()
}

fn run(plan: &Plan) -> Result<()> {
    if plan.raw {
        print!("{}", measure(plan)?.raw());
        return Ok(());
    }
    let samples = each_apart(plan)?;
    println!("{}", samples.tables());
    if plan.write {
        page::write(&samples)?;
    }
    Ok(())
}

/// Raises the limit of open files and connections for this process and its children. Returns
/// whether it succeeded.
fn open_files(needed: usize) -> bool {
    let needed = needed as u64 + 1000;
    let now = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: Some(needed),
        maximum: now.maximum.map(|maximum| maximum.max(needed)),
    };
    now.current.is_none_or(|current| current >= needed)
        || setrlimit(Resource::Nofile, limit).is_ok()
}

/// Returns whether there may be a bare client beside each machine. Prints a message if not.
fn room_for_clients(machines: usize) -> bool {
    let may = open_files(2 * machines);
    if !may {
        eprintln!("no changes of {machines} machines: too few files may be open (ulimit -Hn)");
    }
    may
}

/// Measures each size in a process of its own, so that memory left by one is not counted for the
/// next.
fn each_apart(plan: &Plan) -> Result<Samples> {
    let begun = Instant::now();
    let mut samples = Samples::default();
    let given: Vec<String> = std::env::args().skip(1).collect();
    for (machines, units) in plan.sizes() {
        eprintln!(
            "{:4.0} s: {machines} machines, {units} units on each",
            begun.elapsed().as_secs_f64()
        );
        // The last of each counts.
        let child = Command::new(std::env::current_exe()?)
            .args(&given)
            .args(["--machines", &machines.to_string()])
            .args(["--units", &units.to_string()])
            .arg(RAW)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let status = child.status;
        ensure!(status.success(), "{machines} machines: {status}");
        samples.take((machines, units), &String::from_utf8(child.stdout)?)?;
    }
    eprintln!("{:4.0} s: done", begun.elapsed().as_secs_f64());
    Ok(samples)
}

/// Measures all sizes in this process.
fn measure(plan: &Plan) -> Result<Samples> {
    let mut samples = Samples::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for (machines, units) in plan.sizes() {
        let available = process::available_memory()?;
        if available < machines as u64 * MEMORY {
            let available = available >> 20;
            eprintln!("not measured: {available} MiB of memory are too few");
            continue;
        }
        samples.of((machines, units));
        runtime.block_on(one_size(plan, machines, units, &mut samples))?;
        if plan.has("others") && machines > AGENTS {
            runtime.block_on(among_others(plan, machines, units, &mut samples))?;
        }
        if plan.has("growth") && (machines, units) == GROWS {
            runtime.block_on(growth::measure(machines, &mut samples))?;
        }
    }
    Ok(samples)
}

async fn one_size(plan: &Plan, machines: usize, units: usize, samples: &mut Samples) -> Result<()> {
    ensure!(
        open_files(machines),
        "{machines} machines need as many open files (ulimit -Hn)"
    );
    let mut etcd = Etcd::start()?.context("etcd is not installed (apt-get install etcd-server)")?;
    let folder = etcd::in_memory()?;
    let socket = folder.path().join("fleet.sock");
    let workers = Workers::start(2)?;
    let proxy = plan.proxy.then(|| Proxy::start(etcd.endpoint()));
    let proxy = proxy.transpose()?;
    let front = proxy.as_ref().map_or(etcd.endpoint(), Proxy::endpoint);
    let mut fleet = Fleet::prepare(etcd.endpoint(), front, machines, units).await?;
    let hub = Hub::start(plan.whole, etcd.endpoint(), &socket, &workers)?;
    let took = fleet.join(&workers).await?;
    samples.add("join", "told", took.as_secs_f64());
    samples.add("join", "errors", fleet.errors() as f64);
    samples.add("join", "etcd's peak", etcd.usage()?.peak as f64);

    if plan.has("changes") && room_for_clients(machines) {
        let changes = Changes::beside(&fleet, &etcd, machines, &workers, samples);
        let mut changes = changes.await?;
        changes.prepare().await?;
        for round in 0..plan.rounds {
            changes.round(round, round < plan.rolls).await?;
            etcd.compact().await?;
        }
        changes.close().await?;
    }
    if plan.has("idle") {
        standing::idle(&fleet, &etcd, &hub, plan.idle, samples).await?;
    }
    if plan.has("reads") && plan.whole {
        let fleetctl = reads::fleetctl()?;
        for _ in 0..plan.rounds {
            reads::measure(etcd.endpoint(), &socket, &fleetctl, &hub, samples).await?;
        }
    }
    if plan.has("storms") {
        standing::restart(&fleet, &mut etcd, samples).await?;
        standing::partition(&fleet, &etcd, samples).await?;
    }
    if let Some(usage) = hub.usage()? {
        samples.add("leader", "peak", usage.peak as f64);
    }
    drop(hub);
    drop(fleet);
    drop(workers);
    Ok(())
}

/// Starts a unit on that many machines, of which only a hundred are agents; see [`others`].
async fn among_others(
    plan: &Plan,
    machines: usize,
    units: usize,
    samples: &mut Samples,
) -> Result<()> {
    if !room_for_clients(machines) {
        return Ok(());
    }
    let etcd = Etcd::start()?.context("etcd is not installed (apt-get install etcd-server)")?;
    let folder = etcd::in_memory()?;
    let socket = folder.path().join("fleet.sock");
    let workers = Workers::start(2)?;
    let mut fleet = Fleet::prepare(etcd.endpoint(), etcd.endpoint(), AGENTS, units).await?;
    let hub = Hub::start(plan.whole, etcd.endpoint(), &socket, &workers)?;
    fleet.join(&workers).await?;
    let rest = machines - AGENTS;
    let others = Others::connect(etcd.endpoint(), AGENTS, rest, units, &workers).await?;
    let changes = Changes::beside(&fleet, &etcd, machines, &workers, samples);
    let mut changes = changes.await?;
    for round in 0..plan.rounds {
        changes.start_among(&others, round).await?;
        etcd.compact().await?;
    }
    changes.close().await?;
    drop(hub);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_fleet_of_300_machines_costs_nothing_after_changes() {
        let version = std::process::Command::new("etcd").arg("--version").output();
        if version.is_err() {
            let must = std::env::var_os("FLEET_TESTS_MUST_RUN").is_some_and(|value| value == "1");
            let line = "skipped: etcd is not installed (apt-get install etcd-server)";
            assert!(!must, "{line}");
            println!("{line}");
            return;
        }
        let plan = Plan {
            machines: vec![300],
            units: vec![3],
            rounds: 1,
            rolls: 1,
            idle: Duration::from_secs(3),
            parts: ["changes", "idle", "others"].map(str::to_owned).into(),
            whole: false,
            proxy: false,
            write: false,
            raw: false,
        };
        let samples = measure(&plan).expect("measured");
        let size = (300, 3);
        for change in figures::CHANGES {
            assert!(samples.median(change, "told", size).is_some(), "{change}");
        }
        assert_eq!(samples.median("idle", "writes", size), Some(0.0));
        assert_eq!(samples.median("join", "errors", size), Some(0.0));
    }
}
