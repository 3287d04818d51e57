//! Measures one real host with a thousand units: fleet's cost beside systemd's own, and the cost of
//! units that restart all the time.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Host, Lab};

use crate::figure::{self, Figure, Samples};
use crate::probe::{Probe, unit_file};
use crate::standing::usage_of;

const UNITS: usize = 1000;
const LOOPING: usize = 500;

/// The time for which the looping units are observed.
const WHILE: Duration = Duration::from_secs(30);

/// The time in which the work after a change ends.
const QUIET: Duration = Duration::from_secs(2);

/// Measures on a lab of its own. Returns the page.
pub(crate) fn measure(rounds: usize) -> Result<String> {
    let lab = Lab::builder().hosts(1).etcd(1).start()?;
    lab.install_fleet(|_| lab.fleet_conf())?;
    let host = lab.host(1);
    lab.wait_until(QUIET * 10, "fleet answers", || {
        Ok(host.fleetctl(&["list-machines"])?.code == 0)
    })?;
    let mut crowd = Crowd {
        host,
        probe: Probe::new(lab.hosts())?,
        samples: Samples::default(),
    };
    for round in 0..rounds {
        eprintln!("round {}: systemd by itself", round + 1);
        let floor = crowd.by_systemd()?;
        eprintln!("round {}: fleet", round + 1);
        let fleet = crowd.by_fleet(round as u32)?;
        for ((figure, fleet), floor) in RATIOS.into_iter().zip(fleet).zip(floor) {
            crowd.samples.add(figure, fleet / floor);
        }
    }
    eprintln!("units that restart all the time");
    crowd.loops()?;
    let machine = figure::machine(&lab)?;
    Ok(format!("{machine}\n\n{}", crowd.samples.table()))
}

const RATIOS: [&Figure; 3] = [
    figure::CROWD_START_RATIO,
    figure::CROWD_UPDATE_RATIO,
    figure::CROWD_STOP_RATIO,
];

struct Crowd<'a> {
    host: &'a Host,
    probe: Probe,
    samples: Samples,
}

impl Crowd<'_> {
    /// Starts, updates and stops the units by systemctl alone. Returns the time of each.
    fn by_systemd(&mut self) -> Result<[f64; 3]> {
        let host = self.host;
        // In fleet's directory, so that systemd reads the same files.
        let write = |version| {
            (0..UNITS).try_for_each(|n| {
                let path = format!("/run/systemd/system/floor{n}.service");
                host.write_file(&path, unit_file(version, ""))
            })
        };
        let all = "/run/systemd/system/floor*";
        let names = format!("$(cd /run/systemd/system; echo {})", "floor*.service");
        write(1)?;
        let start = self.until_started(
            figure::CROWD_FLOOR_START,
            1,
            &format!("systemctl daemon-reload; systemctl start {names}"),
        )?;
        write(2)?;
        let update = self.until_started(
            figure::CROWD_FLOOR_UPDATE,
            2,
            &format!("systemctl daemon-reload; systemctl restart {names}"),
        )?;
        let stop =
            self.until_stopped(figure::CROWD_FLOOR_STOP, &format!("systemctl stop {names}"))?;
        host.sh(&format!("rm {all}; systemctl daemon-reload"))?
            .ok()?;
        Ok([start, update, stop])
    }

    /// Starts, updates and stops the units by fleetctl. Returns the time of each.
    fn by_fleet(&mut self, round: u32) -> Result<[f64; 3]> {
        let host = self.host;
        let (first, second) = (2 * round + 3, 2 * round + 4);
        let write = |version| {
            (0..UNITS).try_for_each(|n| {
                let path = format!("/root/crowd/crowd{n}.service");
                host.write_file(&path, unit_file(version, ""))
            })
        };
        write(first)?;
        let start = self.until_started(
            figure::CROWD_START,
            first,
            "cd /root/crowd; fleetctl start *.service",
        )?;
        let usage = usage_of(host)?;
        self.samples.add(figure::CROWD_RSS, usage.rss);
        write(second)?;
        let update = self.until_started(
            figure::CROWD_UPDATE,
            second,
            "cd /root/crowd; fleetctl start --replace *.service",
        )?;
        let stop = self.until_stopped(
            figure::CROWD_STOP,
            "cd /root/crowd; fleetctl stop *.service",
        )?;
        host.sh("cd /root/crowd; fleetctl destroy *.service")?
            .ok()?;
        Ok([start, update, stop])
    }

    /// Measures units that end and restart every second: first systemd's alone, then fleet's.
    fn loops(&mut self) -> Result<()> {
        let unit = "[Service]\nExecStart=/bin/true\nRestart=always\nRestartSec=10\n\
                    [Unit]\nStartLimitIntervalSec=0\n[X-Fleet]\nGlobal=true\n";
        let host = self.host;
        for n in 0..LOOPING {
            host.write_file(&format!("/run/systemd/system/floor{n}.service"), unit)?;
            host.write_file(&format!("/root/loop/loop{n}.service"), unit)?;
        }
        host.sh("systemctl daemon-reload; cd /run/systemd/system; systemctl start floor*.service")?
            .ok()?;
        let (_, alone) = self.watch()?;
        host.sh(
            "cd /run/systemd/system; systemctl stop floor*.service; rm floor*.service; systemctl daemon-reload",
        )?
        .ok()?;
        self.samples.add(figure::LOOP_FLOOR_SYSTEMD, alone);
        host.sh("cd /root/loop; fleetctl start *.service")?.ok()?;
        let (fleetd, systemd) = self.watch()?;
        self.samples.add(figure::LOOP_FLEETD, fleetd);
        self.samples.add(figure::LOOP_SYSTEMD, systemd);
        host.sh("cd /root/loop; fleetctl destroy *.service")?
            .ok()
            .map(drop)
    }

    /// Returns the share of a core that fleetd uses, and that PID 1 uses.
    fn watch(&self) -> Result<(f64, f64)> {
        thread::sleep(QUIET);
        let now = || -> Result<(f64, f64)> {
            let fleetd = usage_of(self.host)?.seconds;
            Ok((fleetd, schedstat(self.host, 1)?))
        };
        let before = now()?;
        let begun = Instant::now();
        thread::sleep(WHILE);
        let after = now()?;
        let seconds = begun.elapsed().as_secs_f64();
        let share = |before, after| (after - before) / seconds * 100.0;
        Ok((share(before.0, after.0), share(before.1, after.1)))
    }

    fn until_started(&mut self, figure: &Figure, version: u32, command: &str) -> Result<f64> {
        let begun = self.begin();
        self.host.sh(command)?.ok()?;
        let end = self.probe.started(version, UNITS)?;
        Ok(self.end(figure, begun, end))
    }

    fn until_stopped(&mut self, figure: &Figure, command: &str) -> Result<f64> {
        let begun = self.begin();
        self.host.sh(command)?.ok()?;
        let end = self.probe.stopped(1)?;
        Ok(self.end(figure, begun, end))
    }

    fn begin(&self) -> Instant {
        thread::sleep(QUIET);
        self.probe.forget();
        Instant::now()
    }

    fn end(&mut self, figure: &Figure, begun: Instant, end: Instant) -> f64 {
        let seconds = (end - begun).as_secs_f64();
        self.samples.add(figure, seconds);
        seconds
    }
}

/// Returns the processor seconds of a process with one thread.
fn schedstat(host: &Host, pid: u32) -> Result<f64> {
    let path = host.path(&format!("/proc/{pid}/schedstat"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
}
