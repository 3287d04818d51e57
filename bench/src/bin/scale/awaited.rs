//! The events awaited of every machine: that it received a change, and that its report is in the
//! registry.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Result, bail};
use fleet_core::record::{self, MachineReport};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A limit longer than every measurement on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// The machines that an event is awaited of, each once.
pub(crate) struct Roll {
    done: Vec<AtomicBool>,
    left: AtomicUsize,
    ended: Mutex<Option<Instant>>,
    all: Notify,
}

impl Roll {
    /// Returns a roll of all these machines.
    pub(crate) fn of_all(count: usize) -> Self {
        Self {
            done: (0..count).map(|_| AtomicBool::new(false)).collect(),
            left: AtomicUsize::new(count),
            ended: Mutex::new(None),
            all: Notify::new(),
        }
    }

    /// Returns a roll of some of these machines.
    pub(crate) fn of_some(count: usize, some: impl Iterator<Item = usize>) -> Self {
        let roll = Self::of_all(count);
        for done in &roll.done {
            done.store(true, Ordering::Relaxed);
        }
        let mut left = 0;
        for number in some {
            roll.done[number].store(false, Ordering::Relaxed);
            left += 1;
        }
        roll.left.store(left, Ordering::Relaxed);
        roll
    }

    /// Records the event of that machine.
    pub(crate) fn tick(&self, number: usize) {
        if self.done[number].swap(true, Ordering::Relaxed) {
            return;
        }
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            self.all.notify_waiters();
        }
    }

    /// Waits until all machines had the event. Returns the time of the last.
    pub(crate) async fn all(&self, what: &str) -> Result<Instant> {
        let ended = async {
            loop {
                let notified = self.all.notified();
                let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
                match ended {
                    Some(at) => return at,
                    None => notified.await,
                }
            }
        };
        match timeout(LIMIT, ended).await {
            Ok(at) => Ok(at),
            Err(_) => bail!(
                "{what}: {} of {} machines are missing after {LIMIT:?}",
                self.left.load(Ordering::Relaxed),
                self.done.len()
            ),
        }
    }
}

/// The state in a report that ends a change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reported {
    /// The unit is available in that revision.
    Available(u64),
    /// The unit is inactive.
    Inactive,
    /// The unit is missing.
    Gone,
    /// This many units are available, in any revision.
    Units(usize),
}

/// A change of one unit.
pub(crate) struct Change {
    unit: String,
    asked: &'static str,
    reported: Reported,
    /// The beginning of the unit's entry in a report.
    key: String,
    /// The unit's name, as in the list of removed units.
    name: String,
    /// The machines whose systemd received the task.
    pub(crate) seen: Roll,
    /// The machines whose report is in the registry.
    pub(crate) told: Roll,
}

impl Change {
    /// Returns a change. `asked` is systemd's task for the unit. `only` is the machine concerned,
    /// if not all `count`.
    pub(crate) fn new(
        unit: &str,
        asked: &'static str,
        reported: Reported,
        count: usize,
        only: Option<usize>,
    ) -> Arc<Self> {
        let roll = || match only {
            Some(one) => Roll::of_some(count, std::iter::once(one)),
            None => Roll::of_all(count),
        };
        Arc::new(Self {
            unit: unit.to_owned(),
            asked,
            reported,
            key: format!("\"{unit}\":{{"),
            name: format!("\"{unit}\""),
            seen: roll(),
            told: roll(),
        })
    }

    fn row<'a>(&self, report: &'a str) -> Option<&'a str> {
        let (_, rest) = report.split_once(&self.key)?;
        // No text of a healthy unit contains a brace.
        Some(rest.split_once('}').map_or(rest, |(row, _)| row))
    }

    /// Returns whether a report of these changes over that base shows the end of the change. It
    /// searches the text: parsing all of it would cost more than many an agent.
    fn is_told_by(&self, changes: &str, base: &str) -> bool {
        let base = if changes.contains("\"base\":") {
            base
        } else {
            ""
        };
        let row = self.row(changes).or_else(|| {
            let is_gone = changes.contains(&self.name);
            self.row(base).filter(|_| !is_gone)
        });
        match self.reported {
            Reported::Gone => row.is_none(),
            Reported::Inactive => row.is_some_and(|row| row.contains("\"active\":\"inactive\"")),
            Reported::Available(revision) => row.is_some_and(|row| {
                row.contains("\"available\":true")
                    && row.contains(&format!("\"revision\":{revision},"))
            }),
            Reported::Units(count) => {
                let report = record::decode_report(changes.as_bytes(), Some(base.as_bytes()));
                let report: MachineReport = report.unwrap_or_default();
                report.units.values().filter(|unit| unit.available).count() >= count
            }
        }
    }
}

/// The current change, shared by all observers.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<RwLock<Option<Arc<Change>>>>);

impl Stage {
    pub(crate) fn set(&self, change: Option<Arc<Change>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = change;
    }

    /// Records that a machine's systemd received that task for a unit.
    pub(crate) fn asked(&self, number: usize, unit: &str, what: &str) {
        if let Some(change) = &*self.0.read().unwrap_or_else(PoisonError::into_inner)
            && change.asked == what
            && change.unit == unit
        {
            change.seen.tick(number);
        }
    }

    /// Records that a machine's report is in the registry.
    pub(crate) fn reported(&self, number: usize, changes: &str, base: &str) {
        if let Some(change) = &*self.0.read().unwrap_or_else(PoisonError::into_inner)
            && change.is_told_by(changes, base)
        {
            change.told.tick(number);
        }
    }

    /// Returns whether reports are awaited.
    pub(crate) fn awaits(&self) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }
}
