//! What the hosts themselves write down about a unit: when its process came up, and when it went.
//!
//! All hosts share this machine's clock, so what they wrote can be laid side by side, to the microsecond.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use lab::{Host, Lab};

use super::{QUARTER, at_once};

/// The process of every unit here. `$3` is done before it counts as up, `$4` after.
///
/// A process that is killed outright writes no end: of a host that loses its power nobody says that it was down.
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

const PATH: &str = "/usr/local/bin/trail";

/// Puts the process there.
pub(super) fn install(host: &Host) -> Result<()> {
    host.write_file(PATH, PROCESS)?;
    host.exec(&["chmod", "+x", PATH])?.ok().map(drop)
}

/// A unit that leaves a trail.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    version: u32,
    service: String,
    before: String,
    after: String,
    fleet: String,
}

impl Unit {
    pub(super) fn version(version: u32) -> Self {
        Self {
            version,
            service: String::new(),
            before: String::new(),
            after: String::new(),
            fleet: String::new(),
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.version
    }

    /// That says itself when it is up, after that many seconds.
    pub(super) fn notifies_after(self, seconds: u32) -> Self {
        Self {
            service: "Type=notify\nNotifyAccess=all\n".to_owned(),
            before: format!("sleep {seconds}; systemd-notify --ready"),
            ..self
        }
    }

    /// That does this once it is up.
    pub(super) fn then(self, after: &str) -> Self {
        Self {
            after: after.to_owned(),
            ..self
        }
    }

    /// With one more line in `[Service]`.
    pub(super) fn service(mut self, line: &str) -> Self {
        self.service += &format!("{line}\n");
        self
    }

    /// With one more line in `[X-Fleet]`.
    pub(super) fn fleet(mut self, line: &str) -> Self {
        self.fleet += &format!("{line}\n");
        self
    }

    pub(super) fn file(&self) -> String {
        let Self {
            version,
            service,
            before,
            after,
            fleet,
        } = self;
        format!(
            "[Service]\nExecStart={PATH} %n {version} '{before}' '{after}'\n{service}\n[X-Fleet]\n{QUARTER}{fleet}"
        )
    }
}

/// Now, in microseconds since 1970.
pub(super) fn now() -> Result<u64> {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(passed.as_micros())?)
}

/// What some hosts wrote about a unit since a moment.
pub(super) struct Trail(Vec<(String, Vec<Event>)>);

#[derive(Clone, Copy)]
struct Event {
    at: u64,
    up: bool,
    version: u32,
}

impl Trail {
    /// What all hosts wrote.
    pub(super) fn of(lab: &Lab, unit: &str, since: u64) -> Result<Self> {
        let read = at_once(lab.hosts(), |host| {
            let text = host.read_file(&format!("/srv/{unit}")).unwrap_or_default();
            let events: Option<Vec<Event>> = text.lines().map(event).collect();
            let mut events = events.with_context(|| text.clone())?;
            events.retain(|event| event.at >= since);
            Ok((host.name().to_owned(), events))
        });
        Ok(Self(read?))
    }

    /// Only of these hosts.
    pub(super) fn only(mut self, hosts: &[&Host]) -> Self {
        self.0
            .retain(|(name, _)| hosts.iter().any(|host| host.name() == name));
        self
    }

    /// The versions that came up, in this order, by host.
    pub(super) fn started(&self) -> impl Iterator<Item = (&str, Vec<u32>)> {
        self.0.iter().map(|(name, events)| {
            let up = events.iter().filter(|event| event.up);
            (name.as_str(), up.map(|event| event.version).collect())
        })
    }

    /// How many hosts ever had that version up.
    pub(super) fn tried(&self, version: u32) -> usize {
        self.started()
            .filter(|(_, versions)| versions.contains(&version))
            .count()
    }

    /// How many hosts have taken it down at least once.
    pub(super) fn went(&self) -> usize {
        let went = |events: &[Event]| events.iter().any(|event| !event.up);
        self.0.iter().filter(|(_, events)| went(events)).count()
    }

    /// How many hosts were without the unit at the worst moment, and what all of them wrote, in order.
    pub(super) fn most_down(&self) -> (usize, String) {
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
