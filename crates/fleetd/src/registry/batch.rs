//! Changes of units that are requested at once, made in few commits.
//!
//! A command may name a thousand units, and each is a separate request. Requests that arrive during
//! a commit wait for its end. They are then read and committed together. A single request waits for
//! nothing.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::SeenRecord;
use fleet_core::unit::UnitName;
use tokio::sync::oneshot;

use super::history::{self, History};
use super::{ATTEMPTS, Fence, Registry, RegistryError, Result, Stored, UNITS_MAX, Wanted};
use crate::store::{self, Entry, Guard, Snapshot, StoreError, Write};

/// The number of units that are read at once. Each needs three of the 128 ranges that a request may
/// have.
const UNITS: usize = 40;

/// The registry's state of a unit.
pub(super) struct Found<'a> {
    name: &'a UnitName,
    entry: Option<&'a Entry>,
    snapshot: &'a Snapshot,
}

impl<'a> Found<'a> {
    pub(super) fn new(name: &'a UnitName, snapshot: &'a Snapshot) -> Self {
        Self {
            name,
            entry: snapshot.entries.get(&keys::unit(name)),
            snapshot,
        }
    }

    /// Returns the prefixes that hold the state of a unit.
    pub(super) fn prefixes(name: &UnitName) -> [String; 3] {
        [
            keys::unit(name),
            // As a prefix, it also covers the older revisions.
            keys::seen(name),
            keys::owners_of(name),
        ]
    }

    pub(super) fn name(&self) -> &'a UnitName {
        self.name
    }

    /// Returns whether the unit exists, readable or not.
    pub(super) fn exists(&self) -> bool {
        self.entry.is_some()
    }

    /// Returns its record as it is in the registry.
    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        self.entry.map(|entry| &*entry.value)
    }

    /// Returns the store revision that it was read at.
    pub(super) fn revision(&self) -> u64 {
        self.snapshot.revision
    }

    /// Returns the machines whose directories own the unit by a key, and the store revisions that
    /// wrote those keys.
    pub(super) fn owners(&self) -> BTreeMap<MachineId, u64> {
        let prefix = keys::owners_of(self.name);
        let below = self.snapshot.entries.range(prefix.clone()..);
        let below = below.take_while(|(key, _)| key.starts_with(&prefix));
        let owner =
            |(key, entry): (&String, &Entry)| Some((keys::owner_of(key)?.1, entry.modified));
        below.filter_map(owner).collect()
    }

    /// Returns its record. `None` if the unit does not exist.
    pub(super) fn unit(&self) -> Result<Option<Stored>> {
        let read = |entry| Stored::read(self.name, entry);
        self.entry.map(read).transpose()
    }

    /// Returns its older revisions.
    pub(super) fn history(&self) -> History {
        history::of(self.snapshot, self.name)
    }

    /// Returns the contents that it ever had.
    pub(super) fn seen(&self) -> SeenRecord {
        history::seen(self.snapshot, self.name)
    }

    /// Returns the guard that the unit has not changed since it was read.
    pub(super) fn guard(&self) -> Guard {
        let key = keys::unit(self.name);
        match self.entry {
            Some(entry) => Guard::Unmodified(key, entry.modified),
            None => Guard::Absent(key),
        }
    }
}

/// A change of one unit. It is decided again whenever another change came first.
trait Change: Send {
    fn unit(&self) -> &UnitName;
    /// Returns the writes to make. There are none if nothing needs to change.
    fn decide(&mut self, found: &Found<'_>) -> Result<Vec<Write>>;
    /// Sends the result to the request.
    fn end(self: Box<Self>, result: Result<()>);
}

/// A change whose result is a `T`.
struct Asked<T, D> {
    unit: UnitName,
    decide: D,
    decided: Option<T>,
    tell: oneshot::Sender<Result<T>>,
}

impl<T, D> Change for Asked<T, D>
where
    T: Send,
    D: FnMut(&Found<'_>) -> Result<(T, Vec<Write>)> + Send,
{
    fn unit(&self) -> &UnitName {
        &self.unit
    }

    fn decide(&mut self, found: &Found<'_>) -> Result<Vec<Write>> {
        let (decided, writes) = (self.decide)(found)?;
        self.decided = Some(decided);
        Ok(writes)
    }

    fn end(self: Box<Self>, result: Result<()>) {
        let Self { decided, tell, .. } = *self;
        let answer = result.map(|()| decided.expect("what ends well was decided"));
        // The request may have been dropped.
        let _ = tell.send(answer);
    }
}

/// The changes that wait for the end of a commit.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Line>);

#[derive(Default)]
struct Line {
    changes: Vec<Box<dyn Change>>,
    /// Whether a task makes the waiting changes.
    is_served: bool,
}

impl Waiting {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the changes to make next, at most one for each unit. `None` if there are no more;
    /// the task then ends.
    fn next(&self) -> Option<Vec<Box<dyn Change>>> {
        let mut line = self.line();
        let mut next: Vec<Box<dyn Change>> = Vec::new();
        for change in mem::take(&mut line.changes) {
            if next.len() < UNITS && next.iter().all(|it| it.unit() != change.unit()) {
                next.push(change);
            } else {
                line.changes.push(change);
            }
        }
        line.is_served = !next.is_empty();
        line.is_served.then_some(next)
    }
}

impl Registry {
    /// Changes a unit as `decide` says, which may be called several times. Once requested, the
    /// change is made even if the caller stops waiting.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        unit: &UnitName,
        decide: impl FnMut(&Found<'_>) -> Result<(T, Vec<Write>)> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let asked = Asked {
            unit: unit.clone(),
            decide,
            decided: None,
            tell,
        };
        let was_served = {
            let mut line = self.waiting.line();
            line.changes.push(Box::new(asked));
            mem::replace(&mut line.is_served, true)
        };
        if !was_served {
            tokio::spawn(self.clone().serve());
        }
        told.await.unwrap_or_else(|_| {
            let text = "this fleetd is stopping or the change failed; see its journal";
            Err(StoreError::Unavailable(text.to_owned()).into())
        })
    }

    async fn serve(self) {
        while let Some(changes) = self.waiting.next() {
            let registry = self.clone();
            // A task of its own: a change that panics ends only this commit, and later ones are not
            // stuck.
            let _ = tokio::spawn(async move { registry.make(changes).await }).await;
        }
    }

    async fn make(&self, changes: Vec<Box<dyn Change>>) {
        let mut together = changes;
        let mut alone = Vec::new();
        while !together.is_empty() {
            let left = self.attempt(together).await;
            together = left.unfit;
            alone.extend(left.lost);
        }
        for change in alone {
            let mut lost = vec![change];
            for _ in 1..ATTEMPTS {
                lost = self.attempt(lost).await.lost;
            }
            self.fail(lost, &StoreError::Refused.into());
        }
    }

    /// Reads the units, decides, and commits, once.
    async fn attempt(&self, changes: Vec<Box<dyn Change>>) -> Left {
        let mut left = Left::default();
        if changes.is_empty() {
            return left;
        }
        let prefixes = changes.iter().map(|it| it.unit());
        let prefixes = prefixes.flat_map(Found::prefixes);
        let prefixes: Vec<String> = prefixes.collect();
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let snapshot = match self.store.list(&prefixes).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.fail(changes, &error.into());
                return left;
            }
        };
        let (mut guards, mut writes, mut decided) = (Vec::new(), Vec::new(), Vec::new());
        let mut room = None;
        let mut changes = changes.into_iter();
        while let Some(mut change) = changes.next() {
            let unit = change.unit().clone();
            let found = Found::new(&unit, &snapshot);
            let wanted = match change.decide(&found) {
                Ok(wanted) if wanted.is_empty() => {
                    change.end(Ok(()));
                    continue;
                }
                Ok(wanted) => wanted,
                Err(error) => {
                    change.end(Err(error));
                    continue;
                }
            };
            if !decided.is_empty() && !store::fits(guards.len() + 1, writes.iter().chain(&wanted)) {
                // The changes after it are not decided now, because they would be decided again.
                left.unfit = std::iter::once(change).chain(changes).collect();
                break;
            }
            if found.entry.is_none() {
                match self.take_room(&mut room).await {
                    Ok(()) => {}
                    Err(error) => {
                        change.end(Err(error));
                        continue;
                    }
                }
            }
            guards.push(found.guard());
            writes.extend(wanted);
            decided.push(change);
        }
        if decided.is_empty() {
            return left;
        }
        let wanted = Wanted { guards, writes };
        match self.commit(Fence::Trust, wanted).await {
            Ok(true) => decided.into_iter().for_each(|change| change.end(Ok(()))),
            Ok(false) => left.lost = decided,
            Err(error) => self.fail(decided, &error),
        }
        left
    }

    /// Sends the same error to these requests. If the registry is unavailable, the waiting requests
    /// get it too: they would only wait as long again.
    fn fail(&self, mut changes: Vec<Box<dyn Change>>, error: &RegistryError) {
        if matches!(error, RegistryError::Store(StoreError::Unavailable(_))) {
            changes.append(&mut self.waiting.line().changes);
        }
        for change in changes {
            change.end(Err(match error {
                RegistryError::Store(error) => error.clone().into(),
                RegistryError::Held(reason) => RegistryError::Held(reason.clone()),
                other => RegistryError::Held(other.to_string()),
            }));
        }
    }

    /// Takes one place for a unit out of `room`, which is read first. When several machines add
    /// units at once, a few too many may get in.
    async fn take_room(&self, room: &mut Option<usize>) -> Result<()> {
        let left = match room {
            Some(left) => *left,
            // One key below the prefix is about the unit destroyed last.
            None => (UNITS_MAX + 1).saturating_sub(self.store.count(keys::UNITS).await?),
        };
        let less = left.checked_sub(1);
        *room = Some(less.unwrap_or_default());
        less.map(drop).ok_or(RegistryError::TooManyUnits)
    }
}

/// The changes that an attempt did not make.
#[derive(Default)]
struct Left {
    /// Changes that did not fit into the commit.
    unfit: Vec<Box<dyn Change>>,
    /// Changes of a commit that another change preceded, in one unit at least.
    lost: Vec<Box<dyn Change>>,
}
