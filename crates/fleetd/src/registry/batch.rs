//! Changes of units that are asked for at once, made in few commits.
//!
//! A command names a thousand units, and each is a request of its own. What comes while a commit is on its way waits for its
//! end, and is read and committed together then. One that comes alone waits for nothing.

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

/// Units that are read at once: each takes three of the 128 ranges that a request may have.
const UNITS: usize = 40;

/// What the registry has of a unit.
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

    /// What is read of a unit to know it.
    pub(super) fn prefixes(name: &UnitName) -> [String; 3] {
        [
            keys::unit(name),
            // And below it, the older revisions.
            keys::seen(name),
            keys::owners_of(name),
        ]
    }

    pub(super) fn name(&self) -> &'a UnitName {
        self.name
    }

    /// Whether there is a unit, readable or not.
    pub(super) fn exists(&self) -> bool {
        self.entry.is_some()
    }

    /// Its record as it is in the registry.
    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        self.entry.map(|entry| &*entry.value)
    }

    /// The store revision that it was read at.
    pub(super) fn revision(&self) -> u64 {
        self.snapshot.revision
    }

    /// The machines whose directories own it by a key, and the store revisions that wrote those.
    pub(super) fn owners(&self) -> BTreeMap<MachineId, u64> {
        let prefix = keys::owners_of(self.name);
        let below = self.snapshot.entries.range(prefix.clone()..);
        let below = below.take_while(|(key, _)| key.starts_with(&prefix));
        let owner =
            |(key, entry): (&String, &Entry)| Some((keys::owner_of(key)?.1, entry.modified));
        below.filter_map(owner).collect()
    }

    /// Its record, none if there is no such unit.
    pub(super) fn unit(&self) -> Result<Option<Stored>> {
        let read = |entry| Stored::read(self.name, entry);
        self.entry.map(read).transpose()
    }

    /// Its older revisions.
    pub(super) fn history(&self) -> History {
        history::of(self.snapshot, self.name)
    }

    /// The contents that it ever had.
    pub(super) fn seen(&self) -> SeenRecord {
        history::seen(self.snapshot, self.name)
    }

    /// That it is as it was read.
    pub(super) fn guard(&self) -> Guard {
        let key = keys::unit(self.name);
        match self.entry {
            Some(entry) => Guard::Unmodified(key, entry.modified),
            None => Guard::Absent(key),
        }
    }
}

/// A change of one unit, which is decided anew whenever somebody else was first.
trait Change: Send {
    fn unit(&self) -> &UnitName;
    /// What to write; nothing if all is as it is to be.
    fn decide(&mut self, found: &Found<'_>) -> Result<Vec<Write>>;
    /// Tells who asked for it.
    fn end(self: Box<Self>, result: Result<()>);
}

/// A change whose answer is a `T`.
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
        // Nobody may wait for it any more.
        let _ = tell.send(answer);
    }
}

/// The changes that wait for the end of a commit.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Line>);

#[derive(Default)]
struct Line {
    changes: Vec<Box<dyn Change>>,
    /// Whether somebody makes them.
    is_served: bool,
}

impl Waiting {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those to make next, of each unit one; none if there are no more, and then nobody serves them.
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
    /// Changes a unit as `decide` says, which may be asked several times. Once it was asked for, it is made, also if nobody waits
    /// for its end any more.
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
            // In a task of its own: a change that panics ends itself, and nobody else waits for ever.
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
                // Nor is anything decided of those behind it, which would be decided again.
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

    /// Tells all who asked for these the same. If the registry is away, those that wait hear it too: they would only wait as long
    /// again.
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

    /// Takes the place of one more unit out of `room`, which is asked for first. Of several that come at once from several
    /// machines, a few too many may get in.
    async fn take_room(&self, room: &mut Option<usize>) -> Result<()> {
        let left = match room {
            Some(left) => *left,
            // One key is of what was destroyed last.
            None => (UNITS_MAX + 1).saturating_sub(self.store.count(keys::UNITS).await?),
        };
        let less = left.checked_sub(1);
        *room = Some(less.unwrap_or_default());
        less.map(drop).ok_or(RegistryError::TooManyUnits)
    }
}

/// What an attempt has not made.
#[derive(Default)]
struct Left {
    /// Beyond what one commit takes.
    unfit: Vec<Box<dyn Change>>,
    /// Somebody else was first, with one of them at least.
    lost: Vec<Box<dyn Change>>,
}
