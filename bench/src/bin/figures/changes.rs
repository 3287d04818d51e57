//! Measures the time from a command until the hosts have the change, and the floors below it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::figure::{self, Figure, Samples};
use crate::probe::{Probe, unit_file};

/// The time in which the work after a change (reports, marks) ends, so that it is not measured with
/// the next change. The product's own pauses are 50 ms.
const QUIET: Duration = Duration::from_millis(200);

const MANY: usize = 50;

pub(crate) struct Changes<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) probe: &'a Probe,
    pub(crate) samples: &'a mut Samples,
}

impl Changes<'_> {
    /// Measures one unit from start to destroy, then one with a listing on every machine.
    pub(crate) fn one_unit(&mut self, round: usize) -> Result<()> {
        let (first, all) = (self.lab.host(1), self.lab.hosts().len());
        let name = format!("one{round}.service");
        let path = format!("/root/{name}");
        first.write_file(&path, unit_file(1, ""))?;
        self.starts(figure::NEW, &["start", &path], 1, all)?;
        self.stops(figure::STOP, &["stop", &name], all)?;
        self.starts(figure::START, &["start", &name], 1, all)?;
        first.write_file(&path, unit_file(2, ""))?;
        self.starts(figure::UPDATE, &["start", "--replace", &path], 2, all)?;
        self.stops(figure::DESTROY, &["destroy", &name], all)?;

        let begun = self.begin();
        first.sh(&format!(
            "fleetctl start {path} && until fleetctl list-units --no-legend \\
             | awk '$1 == \"{name}\" && $3 == \"active\" {{ n++ }} END {{ exit n != {all} }}'; do :; done"
        ))?
        .ok()?;
        self.samples
            .add(figure::LISTED, begun.elapsed().as_secs_f64());
        first.fleetctl(&["destroy", &name])?.ok()?;
        self.probe.stopped(all).map(drop)
    }

    /// Measures a unit that begins and ceases to match one machine.
    pub(crate) fn metadata(&mut self, rounds: usize) -> Result<()> {
        let first = self.lab.host(1);
        let machine = self.lab.host(2).machine_id();
        first.write_file(
            "/root/label.service",
            unit_file(1, "MachineMetadata=figures=yes\n"),
        )?;
        first.fleetctl(&["start", "/root/label.service"])?.ok()?;
        for _ in 0..rounds {
            self.starts(figure::LABEL, &["metadata", &machine, "figures=yes"], 1, 1)?;
            self.stops(figure::UNLABEL, &["metadata", &machine, "figures-"], 1)?;
        }
        first
            .fleetctl(&["destroy", "label.service"])?
            .ok()
            .map(drop)
    }

    /// Measures many units in one command.
    pub(crate) fn many_units(&mut self, round: usize) -> Result<()> {
        let first = self.lab.host(1);
        let all = self.lab.hosts().len();
        let names: Vec<String> = (0..MANY)
            .map(|n| format!("many{round}-{n}.service"))
            .collect();
        let paths: Vec<String> = names.iter().map(|name| format!("/root/{name}")).collect();
        for path in &paths {
            first.write_file(path, unit_file(1, ""))?;
        }
        self.starts(figure::MANY, &arguments(&["start"], &paths), 1, MANY * all)?;
        self.stops(figure::MANY_GONE, &arguments(&["destroy"], &names), all)
    }

    /// Measures the floors: the work without which no unit can be started by a command line.
    pub(crate) fn floors(&mut self, rounds: usize) -> Result<()> {
        let first = self.lab.host(1);
        let names: Vec<String> = (0..MANY).map(|n| format!("floor{n}.service")).collect();
        for host in self.lab.hosts() {
            for name in &names {
                host.write_file(&format!("/run/systemd/system/{name}"), unit_file(1, ""))?;
            }
            host.exec(&["systemctl", "daemon-reload"])?.ok()?;
        }
        for _ in 0..rounds {
            let begun = self.begin();
            first.fleetctl(&["--version"])?.ok()?;
            self.samples
                .add(figure::FLOOR_CTL, begun.elapsed().as_secs_f64());
            let begun = self.begin();
            put(self.lab)?;
            self.samples
                .add(figure::FLOOR_PUT, begun.elapsed().as_secs_f64());

            let begun = self.begin();
            first.exec(&["systemctl", "start", &names[0]])?.ok()?;
            self.end(figure::FLOOR_START, begun, self.probe.started(1, 1)?);
            let begun = self.begin();
            first.exec(&["systemctl", "stop", &names[0]])?.ok()?;
            self.end(figure::FLOOR_STOP, begun, self.probe.stopped(1)?);

            let begun = self.begin();
            everywhere(self.lab.hosts(), &["systemctl", "daemon-reload"])?;
            self.samples
                .add(figure::FLOOR_RELOAD, begun.elapsed().as_secs_f64());

            let all = self.lab.hosts().len();
            let begun = self.begin();
            everywhere(
                self.lab.hosts(),
                &arguments(&["systemctl", "start"], &names),
            )?;
            self.end(
                figure::FLOOR_MANY,
                begun,
                self.probe.started(1, MANY * all)?,
            );
            let begun = self.begin();
            everywhere(self.lab.hosts(), &arguments(&["systemctl", "stop"], &names))?;
            self.end(figure::FLOOR_MANY_GONE, begun, self.probe.stopped(all)?);
        }
        Ok(())
    }

    fn starts(
        &mut self,
        figure: &Figure,
        command: &[&str],
        version: u32,
        count: usize,
    ) -> Result<()> {
        let begun = self.begin();
        self.lab.host(1).fleetctl(command)?.ok()?;
        self.end(figure, begun, self.probe.started(version, count)?);
        Ok(())
    }

    fn stops(&mut self, figure: &Figure, command: &[&str], hosts: usize) -> Result<()> {
        let begun = self.begin();
        self.lab.host(1).fleetctl(command)?.ok()?;
        self.end(figure, begun, self.probe.stopped(hosts)?);
        Ok(())
    }

    fn begin(&self) -> Instant {
        thread::sleep(QUIET);
        self.probe.forget();
        Instant::now()
    }

    fn end(&mut self, figure: &Figure, begun: Instant, end: Instant) {
        self.samples.add(figure, (end - begun).as_secs_f64());
    }
}

fn arguments<'a>(command: &[&'a str], names: &'a [String]) -> Vec<&'a str> {
    command
        .iter()
        .copied()
        .chain(names.iter().map(String::as_str))
        .collect()
}

/// Runs a command on these hosts at once.
pub(crate) fn everywhere(hosts: &[Host], command: &[&str]) -> Result<()> {
    thread::scope(|scope| {
        let runs: Vec<_> = hosts
            .iter()
            .map(|host: &Host| scope.spawn(|| host.exec(command)?.ok()))
            .collect();
        runs.into_iter()
            .try_for_each(|run| run.join().expect("a command does not panic").map(drop))
    })
}

/// Makes one put through the JSON gateway: `figures` = `1`.
fn put(lab: &Lab) -> Result<()> {
    let body = r#"{"key":"ZmlndXJlcw==","value":"MQ=="}"#;
    lab.member(1).link().inside(|| {
        let mut stream = TcpStream::connect("127.0.0.1:2379")?;
        write!(
            stream,
            "POST /v3/kv/put HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains(" 200 "), "etcd answers: {answer}");
        Ok(())
    })
}
