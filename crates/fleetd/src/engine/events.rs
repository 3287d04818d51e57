//! Events: what leaders decided, for people. The newest ones are kept.

use std::collections::BTreeSet;

use fleet_core::keys;
use fleet_core::record::{Event, EventKind};
use fleet_core::unit::UnitName;

/// How many events are kept, and how many more there may be before the oldest are removed.
const KEPT: usize = 1000;
const MORE: usize = 100;

/// The keys of all events.
#[derive(Debug, Default)]
pub(super) struct Events {
    keys: BTreeSet<String>,
    /// The newest key, of whichever leader.
    last: (u64, u64),
}

impl Events {
    /// Takes those that there are.
    pub(super) fn listed(&mut self, keys: impl Iterator<Item = String>) {
        self.keys = keys.collect();
        let newest = self.keys.iter().filter_map(|key| keys::event_of(key)).max();
        self.last = self.last.max(newest.unwrap_or_default());
    }

    /// A new key, above every other. Whether or not it lands: to remove one that is not there is no
    /// error.
    pub(super) fn add(&mut self, at: u64) -> String {
        self.last = keys::next_event(self.last, at);
        let key = keys::event(self.last.0, self.last.1);
        self.keys.insert(key.clone());
        key
    }

    /// The oldest, where there are so many that some are to be removed.
    pub(super) fn surplus(&self) -> Vec<String> {
        if self.keys.len() < KEPT + MORE {
            return Vec::new();
        }
        let surplus = (self.keys.len() - KEPT).min(MORE);
        self.keys.iter().take(surplus).cloned().collect()
    }

    pub(super) fn removed(&mut self, keys: &[String]) {
        for key in keys {
            self.keys.remove(key);
        }
    }
}

/// What people read of an event, in the journal.
pub(super) fn line(event: &Event) -> String {
    const NAMED: usize = 5;
    let mut line = event.kind.as_str().to_owned();
    if let Some(unit) = &event.unit {
        line = format!("{unit} revision {}: {line}", event.revision);
    }
    let named: Vec<&str> = event
        .machines
        .iter()
        .take(NAMED)
        .map(|id| id.short())
        .collect();
    if !named.is_empty() {
        line += &format!(" {}", named.join(" "));
    }
    if event.machines.len() > NAMED {
        line += &format!(" and {} more", event.machines.len() - NAMED);
    }
    format!("{line}: {}", event.reason)
}

/// An event about a unit that names no machines.
pub(super) fn about(
    unit: &UnitName,
    revision: u64,
    kind: EventKind,
    reason: &str,
    at: u64,
) -> Event {
    Event {
        at,
        kind,
        unit: Some(unit.clone()),
        revision,
        machines: Vec::new(),
        reason: reason.to_owned(),
    }
}
