//! `cargo demo`: three real hosts, one etcd, and the life of one unit on them, shown with fleet's
//! own commands.
//!
//! It needs root and Debian or Ubuntu. Everything runs in namespaces and is removed afterwards.
//! `--keep` leaves the hosts running until Enter or Ctrl-C.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, cleanup, repository, requirements, wait_until};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The limit for every wait: far above what fleet needs, and short enough for a viewer.
const SOON: Duration = Duration::from_secs(20);

/// The unit file that is written to a units directory, halfway through.
const DROPPED: &str = "\
[Unit]
Description=Says how this machine is

[Service]
ExecStart=/bin/sh -c \"while uptime; do sleep 5; done\"

[X-Fleet]
Global=true
";

/// Whether a signal came. After it, only the signal's thread decides the exit code.
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

/// Installs and builds what the demo needs. Prints advice before it fails.
fn prepare() -> Result<()> {
    let installed = match requirements::is_root() {
        true => requirements::install_packages(requirements::LAB),
        false => Ok(()),
    };
    if let Err(why) = installed.and_then(|()| requirements::requirements()) {
        println!("One machine, with its own systemd and no etcd, shows much of the same:\n");
        println!("    cargo build --release");
        println!("    sudo target/release/fleetd --standalone &");
        println!("    sudo target/release/fleetctl start units/hello.service");
        println!("    sudo target/release/fleetctl list-units");
        println!("    sudo target/release/fleetctl destroy hello.service");
        return Err(why.context("this machine cannot hold three hosts"));
    }
    println!("building fleetd and fleetctl; a minute or two the first time\n");
    lab::binaries().map(drop)
}

fn show(keep: bool) -> Result<()> {
    let started = Instant::now();
    let lab = boot()?;
    start_a_unit(&lab)?;
    drop_a_file(&lab)?;
    update(&lab)?;
    break_it(&lab)?;
    lose_the_leader(&lab)?;
    println!("All of it took {:.0} s.", started.elapsed().as_secs_f64());
    if keep {
        println!("\nThe hosts stay up until Enter or Ctrl-C. To enter them, as root:");
        for host in lab.hosts() {
            println!(
                "    nsenter -t {} -a    # {}, {}",
                host.pid1()?,
                host.name(),
                host.address()
            );
        }
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

fn boot() -> Result<Lab> {
    title("Three hosts with systemd as PID 1, and one etcd");
    let started = Instant::now();
    let lab = Lab::builder().hosts(3).etcd(1).start()?;
    // For `fleetctl journal` and `fleetctl ssh`.
    lab.start_sshd()?;
    lab.install_fleet(|host| {
        let metadata = format!("host={}", host.name());
        lab.fleet_conf().metadata(&metadata).line("agent_ttl=5s")
    })?;
    let first = lab.host(1);
    lab.wait_until(SOON, "all machines are listed", || {
        let machines = first.fleetctl(&["list-machines", "--no-legend"])?.ok()?;
        Ok(machines.lines().count() == lab.hosts().len())
    })?;
    println!("ready after {:.1} s\n", started.elapsed().as_secs_f64());
    tell(first, "fleetctl list-machines")?;
    Ok(lab)
}

fn start_a_unit(lab: &Lab) -> Result<()> {
    title("One unit, started once, runs on every machine");
    let hello = std::fs::read(repository().join("units/hello.service"))?;
    lab.host(1).write_file("/root/hello.service", hello)?;
    tell(lab.host(1), "cat hello.service")?;
    tell(lab.host(1), "fleetctl start hello.service")?;
    active_everywhere(lab, "hello.service")?;
    list(lab.host(1), "fleetctl list-units", 3)?;
    tell(
        lab.host(3),
        "systemctl status hello.service --no-pager --lines=2",
    )?;
    tell(lab.host(1), "fleetctl journal --lines=3 hello.service")
}

fn drop_a_file(lab: &Lab) -> Result<()> {
    title("A unit file dropped into /etc/fleet/units of any machine does the same");
    lab.host(2)
        .write_file("/etc/fleet/units/load.service", DROPPED)?;
    tell(lab.host(2), "ls /etc/fleet/units")?;
    active_everywhere(lab, "load.service")?;
    list(lab.host(1), "fleetctl list-units", 6)
}

fn update(lab: &Lab) -> Result<()> {
    title("An update goes to one machine after the other, once the one before is well");
    let first = lab.host(1);
    tell(
        first,
        "sed -i 's/Hello, Global World/Hello again/' hello.service",
    )?;
    // It exits with 1 if anything would change.
    tell(first, "fleetctl plan hello.service; true")?;
    tell(first, "fleetctl start --replace hello.service")?;
    tell(first, "fleetctl rollout status --watch hello.service")?;
    lab.wait_until(SOON, "the new hello.service runs everywhere", || {
        Ok(lab.hosts().iter().all(|host| {
            let line = host.systemctl_show("hello.service", "ExecStart");
            line.is_ok_and(|line| line.contains("Hello again")) && host.is_active("hello.service")
        }))
    })?;
    list(
        first,
        "fleetctl list-units --fields=unit,hash,active,machine",
        6,
    )
}

fn break_it(lab: &Lab) -> Result<()> {
    title("An update that does not work reaches one machine, and goes back by itself");
    let first = lab.host(1);
    tell(
        first,
        "sed -i 's|ExecStart=.*|ExecStart=/bin/false|' hello.service",
    )?;
    tell(first, "fleetctl start --replace hello.service")?;
    // It exits with 7 if the update was rolled back.
    tell(
        first,
        "fleetctl rollout status --watch hello.service; echo \"exit code $?\"",
    )?;
    list(
        first,
        "fleetctl list-units --fields=unit,hash,active,machine",
        6,
    )?;
    tell(first, "fleetctl events hello.service")
}

fn lose_the_leader(lab: &Lab) -> Result<()> {
    title("The machine that leads loses its power: the units of the others do not even notice");
    let old = leader(lab, lab.host(1))?;
    let others: Vec<&Host> = lab
        .hosts()
        .iter()
        .filter(|host| host.number() != old.number())
        .collect();
    let speaker = others[0];
    println!(
        "{} leads. Main processes of hello.service on the others:",
        old.name()
    );
    let before = main_pids(&others)?;
    old.power_off()?;
    println!("{} is off.\n", old.name());
    list(speaker, "fleetctl list-units", 4)?;
    lab.wait_until(SOON, "another machine leads", || {
        Ok(leader(lab, speaker)?.number() != old.number())
    })?;
    // It exits with 3 because of a problem: the update that was rolled back.
    tell_exit(speaker, "fleetctl status", 3)?;
    println!("Main processes now:");
    ensure!(main_pids(&others)? == before, "a unit was restarted");
    println!("the same.\n");

    title("It comes back, and with it its units");
    old.power_on()?;
    active_everywhere(lab, "hello.service")?;
    list(speaker, "fleetctl list-units", 6)
}

fn title(text: &str) {
    println!("=== {text}\n");
}

/// Runs a command line in a host's /root, and prints it with its output, like a terminal.
fn tell(host: &Host, line: &str) -> Result<()> {
    tell_exit(host, line, 0)
}

/// Does the same for a command that ends with this exit code.
fn tell_exit(host: &Host, line: &str, code: i32) -> Result<()> {
    println!("{}# {line}", host.name());
    let output = host.sh(&format!("cd /root; {line}"))?;
    println!("{}{}", output.stdout, output.stderr);
    ensure!(output.code == code, "{output:?}");
    Ok(())
}

/// Prints a listing of units once it has this many rows, all active. Reports follow the units by
/// milliseconds.
fn list(host: &Host, line: &str, rows: usize) -> Result<()> {
    wait_until(SOON, &format!("{rows} active units are listed"), || {
        let listed = host.fleetctl(&["list-units", "--no-legend"])?.ok()?;
        let is_active = |row: &&str| row.split_whitespace().any(|word| word == "active");
        Ok(listed.lines().count() == rows && listed.lines().filter(is_active).count() == rows)
    })?;
    tell(host, line)
}

fn active_everywhere(lab: &Lab, unit: &str) -> Result<()> {
    let started = Instant::now();
    lab.wait_until(SOON, &format!("{unit} is active on all hosts"), || {
        Ok(lab.hosts().iter().all(|host| host.is_active(unit)))
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

/// Returns the leader according to `fleetctl status` on `speaker`.
fn leader<'a>(lab: &'a Lab, speaker: &Host) -> Result<&'a Host> {
    // It exits with 3 while there are problems, such as the update that was rolled back.
    let status = speaker.fleetctl(&["status"])?.stdout;
    let line = status
        .lines()
        .find(|line| line.to_lowercase().contains("leader"));
    let line = line.with_context(|| format!("`fleetctl status` names no leader:\n{status}"))?;
    let named = lab
        .hosts()
        .iter()
        .find(|host| line.contains(&host.machine_id()[..8]));
    named.with_context(|| format!("the leader is none of the hosts: {line}"))
}
