//! Observes units that start and stop on the hosts, without asking the hosts.
//!
//! Every measured unit opens its host's named pipe, writes a line, and keeps the pipe open while it
//! runs. One thread for each host reads the pipe. It wakes at the start of each unit and at the end
//! of the last one. Nothing polls: a loop around `systemctl` would use processor time of the
//! measured system.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Host, run};

/// The path of the pipe on every host.
const PIPE: &str = "/run/figures";

/// The limit for every measurement. A longer one is broken, not slow.
const LIMIT: Duration = Duration::from_secs(120);

/// An event on some host.
struct Event {
    at: Instant,
    /// The line that a unit wrote. `None` when the last unit with the open pipe has ended.
    line: Option<String>,
}

pub(crate) struct Probe {
    events: Receiver<Event>,
}

/// Returns a unit file whose process sends `name` and `version` to the probe. `section` is more
/// lines for `[X-Fleet]`.
pub(crate) fn unit_file(version: u32, section: &str) -> String {
    format!(
        "[Service]\n\
         ExecStart=/bin/sh -c 'exec 3>{PIPE}; echo %n {version} >&3; exec sleep infinity'\n\
         [X-Fleet]\n\
         Global=true\n\
         {section}"
    )
}

/// Returns a unit file whose process does so once it is up, after a second. It may be unavailable
/// on a quarter of the hosts.
pub(crate) fn slow_unit_file(version: u32) -> String {
    format!(
        "[Service]\n\
         Type=notify\n\
         NotifyAccess=all\n\
         ExecStart=/bin/sh -c 'exec 3>{PIPE}; sleep 1; systemd-notify --ready; echo %n {version} >&3; exec sleep infinity'\n\
         [X-Fleet]\n\
         Global=true\n\
         MaxUnavailable=25%\n"
    )
}

impl Probe {
    pub(crate) fn new(hosts: &[Host]) -> Result<Self> {
        let (events, received) = mpsc::channel();
        for host in hosts {
            let pipe = host.path(PIPE);
            run(&["mkfifo", &pipe.display().to_string()])?.ok()?;
            let events = events.clone();
            thread::spawn(move || follow(&pipe, &events));
        }
        Ok(Self { events: received })
    }

    /// Drops the events so far.
    pub(crate) fn forget(&self) {
        while self.events.try_recv().is_ok() {}
    }

    /// Returns when the last of `count` lines of that version was written.
    pub(crate) fn started(&self, version: u32, count: usize) -> Result<Instant> {
        let end = format!(" {version}");
        self.last(count, |line| line.is_some_and(|line| line.ends_with(&end)))
            .with_context(|| format!("{count} processes of version {version} did not start"))
    }

    /// Returns when the last process on the last of `hosts` hosts ended.
    pub(crate) fn stopped(&self, hosts: usize) -> Result<Instant> {
        self.last(hosts, |line| line.is_none())
            .with_context(|| format!("units did not stop on {hosts} hosts"))
    }

    fn last(&self, count: usize, counts: impl Fn(Option<&str>) -> bool) -> Result<Instant> {
        let end = Instant::now() + LIMIT;
        let mut seen = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left)?;
            if counts(event.line.as_deref()) {
                seen += 1;
                if seen == count {
                    return Ok(event.at);
                }
            }
        }
    }
}

/// Sends events until the receiver is dropped or the host ends. Opening waits for the first unit,
/// reading for the last.
fn follow(pipe: &Path, events: &Sender<Event>) {
    while let Ok(open) = File::open(pipe) {
        for line in BufReader::new(open).lines().map_while(Result::ok) {
            let at = Instant::now();
            if events
                .send(Event {
                    at,
                    line: Some(line),
                })
                .is_err()
            {
                return;
            }
        }
        let at = Instant::now();
        if events.send(Event { at, line: None }).is_err() {
            return;
        }
    }
}
