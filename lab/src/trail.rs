//! The hosts' own records about a unit: when its process came up, and when it went down.
//!
//! All hosts share this machine's clock, so their records can be compared, to the microsecond.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cluster::Lab;
use crate::host::Host;
use anyhow::{Context, Result};

/// The process of such a unit. `$3` runs before it counts as up, `$4` after.
///
/// A process that is killed outright records no end. So a host that loses its power never counts as
/// down.
const PROCESS: &str = r#"#!/bin/bash
file=/srv/$1 version=$2
trap 'echo "$EPOCHREALTIME down $version" >> $file' EXIT
trap 'exit 0' TERM
eval "$3"
echo "$EPOCHREALTIME up $version" >> $file
eval "$4"
sleep infinity &
wait
"#;

/// The path of the process: `PATH %n VERSION BEFORE AFTER` is a command line of a unit that leaves
/// a trail.
pub const PATH: &str = "/usr/local/bin/trail";

/// Installs the process on a host.
pub fn install(host: &Host) -> Result<()> {
    host.write_file(PATH, PROCESS)?;
    host.exec(&["chmod", "+x", PATH])?.ok().map(drop)
}

/// Returns microseconds since 1970.
pub fn now() -> Result<u64> {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(passed.as_micros())?)
}

/// The records of some hosts about a unit since a moment.
#[derive(Debug)]
pub struct Trail(Vec<(String, Vec<Event>)>);

#[derive(Clone, Copy, Debug)]
struct Event {
    at: u64,
    up: bool,
    version: u32,
}

impl Trail {
    /// Reads the records of all hosts.
    pub fn of(lab: &Lab, unit: &str, since: u64) -> Result<Self> {
        let read = lab.hosts().iter().map(|host| {
            let text = host.read_file(&format!("/srv/{unit}")).unwrap_or_default();
            let events: Option<Vec<Event>> = text.lines().map(event).collect();
            let mut events = events.with_context(|| text.clone())?;
            events.retain(|event| event.at >= since);
            Ok((host.name().to_owned(), events))
        });
        Ok(Self(read.collect::<Result<_>>()?))
    }

    /// Keeps only the records of these hosts.
    pub fn only(mut self, hosts: &[&Host]) -> Self {
        self.0
            .retain(|(name, _)| hosts.iter().any(|host| host.name() == name));
        self
    }

    /// Returns the versions that came up, in order, by host.
    pub fn started(&self) -> impl Iterator<Item = (&str, Vec<u32>)> {
        self.0.iter().map(|(name, events)| {
            let up = events.iter().filter(|event| event.up);
            (name.as_str(), up.map(|event| event.version).collect())
        })
    }

    /// Returns how many hosts ever had that version up.
    pub fn tried(&self, version: u32) -> usize {
        self.started()
            .filter(|(_, versions)| versions.contains(&version))
            .count()
    }

    /// Returns how many hosts have taken it down at least once.
    pub fn went(&self) -> usize {
        let went = |events: &[Event]| events.iter().any(|event| !event.up);
        self.0.iter().filter(|(_, events)| went(events)).count()
    }

    /// Returns how many hosts were without the unit at the worst moment, and all records in order.
    pub fn most_down(&self) -> (usize, String) {
        let mut all: Vec<(u64, bool, &str, u32)> = Vec::new();
        for (name, events) in &self.0 {
            for event in events {
                all.push((event.at, !event.up, name, event.version));
            }
        }
        all.sort_unstable();
        let first = all.first().map_or(0, |event| event.0);
        let (mut down, mut most, mut story) = (Vec::new(), 0, String::new());
        for (at, went, name, version) in all {
            down.retain(|other| *other != name);
            if went {
                down.push(name);
            }
            most = most.max(down.len());
            let _ = writeln!(
                story,
                "{:9.3} s: {name} {} {version}; {} down",
                std::time::Duration::from_micros(at - first).as_secs_f64(),
                if went { "down" } else { "up" },
                down.len()
            );
        }
        (most, story)
    }
}

fn event(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    Some(Event {
        at: words.next()?.replace('.', "").parse().ok()?,
        up: words.next()? == "up",
        version: words.next()?.parse().ok()?,
    })
}
