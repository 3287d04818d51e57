//! `cargo demo`: three real hosts, one etcd, and the life of one unit on them, told with fleet's own commands.
//!
//! Needs root and a Debian or Ubuntu; everything lives in namespaces and is gone afterwards. `--keep` leaves the
//! hosts up until Enter or Ctrl-C.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{Host, Lab, cleanup, repository, requirements};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Bound of anything the demo waits for: far above what fleet needs, and short enough to sit through.
const SOON: Duration = Duration::from_secs(20);

/// What is dropped into a units directory, halfway through.
const DROPPED: &str = "\
[Unit]
Description=Says how this machine is

[Service]
ExecStart=/bin/sh -c \"while uptime; do sleep 5; done\"

[X-Fleet]
Global=true
";

/// Set once a signal came: from then on the signal's thread alone says how the process ends.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--keep" => true,
        _ => {
            eprintln!("usage: cargo demo [--keep]");
            return ExitCode::from(2);
        }
    };
    let result = clean_up_on_signals()
        .and_then(|()| prepare())
        .and_then(|()| show(keep));
    while INTERRUPTED.load(Ordering::SeqCst) {
        thread::park();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn clean_up_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            let _ = writeln!(io::stderr(), "\ncleaning up");
            if let Err(error) = cleanup::remove_own() {
                let _ = writeln!(
                    io::stderr(),
                    "not all is removed, the next lab tries again: {error:#}"
                );
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the main thread waits for hosts that are gone"
            )]
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Installs and builds what the demo needs; an error, after a word of advice, where it cannot run.
fn prepare() -> Result<()> {
    if requirements::is_root() {
        requirements::install_packages()?;
    }
    if let Err(why) = requirements::requirements() {
        println!("One machine, with its own systemd and no etcd, shows much of the same:\n");
        println!("    cargo build --release");
        println!("    sudo target/release/fleetd --standalone &");
        println!("    sudo target/release/fleetctl start units/hello.service");
        println!("    sudo target/release/fleetctl list-units");
        println!("    sudo target/release/fleetctl destroy hello.service");
        bail!("this machine cannot hold three hosts: it {why:#}");
    }
    println!("building fleetd and fleetctl; a minute or two the first time");
    lab::binaries().map(drop)
}

fn show(keep: bool) -> Result<()> {
    let started = Instant::now();
    title("Three hosts with systemd as PID 1, and one etcd");
    let lab = Lab::builder().hosts(3).etcd(1).start()?;
    lab.install_fleet(|host| {
        lab.fleet_conf()
            .metadata(&format!("host={}", host.name()))
            .line("agent_ttl=5s")
    })?;
    let first = lab.host(1);
    first.write_file(
        "/root/hello.service",
        std::fs::read(repository().join("units/hello.service"))?,
    )?;
    lab.wait_until(SOON, "all machines are listed", || {
        Ok(first
            .fleetctl(&["list-machines", "--no-legend"])?
            .ok()?
            .lines()
            .count()
            == 3)
    })?;
    println!("ready after {:.1} s\n", started.elapsed().as_secs_f64());
    tell(first, "fleetctl list-machines")?;

    title("One unit, started once, runs on every machine");
    tell(first, "cat hello.service")?;
    tell(first, "fleetctl start hello.service")?;
    active_on(&lab, "hello.service", lab.hosts())?;
    tell(first, "fleetctl list-units")?;
    tell(
        lab.host(3),
        "systemctl status hello.service --no-pager --lines=2",
    )?;

    title("A unit file dropped into /etc/fleet/units of any machine does the same");
    lab.host(2)
        .write_file("/etc/fleet/units/load.service", DROPPED)?;
    tell(lab.host(2), "ls /etc/fleet/units")?;
    active_on(&lab, "load.service", lab.hosts())?;
    tell(first, "fleetctl list-units")?;

    title("An update goes from machine to machine, and waits until each is ready");
    tell(
        first,
        "sed -i 's/Hello, Global World/Hello again/' hello.service",
    )?;
    tell(first, "fleetctl start --replace hello.service")?;
    lab.wait_until(SOON, "the new hello.service runs everywhere", || {
        Ok(lab.hosts().iter().all(|host| {
            host.is_active("hello.service")
                && host
                    .systemctl_show("hello.service", "ExecStart")
                    .is_ok_and(|line| line.contains("Hello again"))
        }))
    })?;
    tell(
        first,
        "fleetctl list-units --fields=unit,hash,active,machine",
    )?;

    title("The machine that leads loses its power: the others do not even notice");
    let leader = leader(&lab)?;
    let others: Vec<&Host> = lab
        .hosts()
        .iter()
        .filter(|host| host.number() != leader.number())
        .collect();
    let speaker = others[0];
    println!(
        "{} leads. Main processes of hello.service on the others:",
        leader.name()
    );
    let before = main_pids(&others)?;
    leader.power_off()?;
    println!("{} is off\n", leader.name());
    lab.wait_until(SOON, "its rows are gone", || {
        Ok(speaker
            .fleetctl(&["list-machines", "--no-legend"])?
            .ok()?
            .lines()
            .count()
            == 2)
    })?;
    tell(speaker, "fleetctl list-units")?;
    println!("Main processes now:");
    ensure!(main_pids(&others)? == before, "a unit was restarted");
    println!("the same.\n");

    title("It comes back, and with it its units");
    leader.power_on()?;
    active_on(&lab, "hello.service", lab.hosts())?;
    lab.wait_until(SOON, "all six rows are listed", || {
        let rows = speaker.fleetctl(&["list-units", "--no-legend"])?.ok()?;
        Ok(rows.lines().filter(|row| row.contains("active")).count() == 6)
    })?;
    tell(speaker, "fleetctl list-units")?;

    println!("All of it took {:.0} s.", started.elapsed().as_secs_f64());
    if keep {
        println!("\nThe hosts stay up until Enter or Ctrl-C. To enter them, as root:");
        for host in lab.hosts() {
            println!(
                "    nsenter -t {} -a          # {}, {}",
                host.pid1()?,
                host.name(),
                host.address()
            );
        }
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

fn title(text: &str) {
    println!("\n=== {text}\n");
}

/// Runs a command line in a host's /root, and prints it with all it says, as a terminal would.
fn tell(host: &Host, line: &str) -> Result<()> {
    println!("{}# {line}", host.name());
    let output = host.sh(&format!("cd /root; {line}"))?;
    print!("{}{}", output.stdout, output.stderr);
    println!();
    output.ok().map(drop)
}

fn active_on(lab: &Lab, unit: &str, hosts: &[Host]) -> Result<()> {
    let started = Instant::now();
    lab.wait_until(SOON, &format!("{unit} is active on all hosts"), || {
        Ok(hosts.iter().all(|host| host.is_active(unit)))
    })?;
    println!(
        "active on all hosts after another {} ms\n",
        started.elapsed().as_millis()
    );
    Ok(())
}

fn main_pids(hosts: &[&Host]) -> Result<Vec<u32>> {
    let pids = hosts.iter().map(|host| {
        let pid = host.main_pid("hello.service")?;
        println!("    {} {pid}", host.name());
        Ok(pid)
    });
    pids.collect()
}

/// The host that `fleetctl status` names as the leader.
fn leader(lab: &Lab) -> Result<&Host> {
    let status = lab.host(1).fleetctl(&["status"])?.ok()?;
    let line = status
        .lines()
        .find(|line| line.to_lowercase().contains("leader"));
    let line = line.with_context(|| format!("`fleetctl status` names no leader:\n{status}"))?;
    match lab
        .hosts()
        .iter()
        .find(|host| line.contains(&host.machine_id()[..8]))
    {
        Some(host) => Ok(host),
        None => bail!("the leader is none of the hosts: {line}"),
    }
}
