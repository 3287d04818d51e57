//! Changes of units: submissions, target states, orders, owners and destruction.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::directory::{Fingerprint, Known};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, DestroyedRecord, Owner, OwnerRecord, Past, UnitRecord};
use fleet_core::rollout::{self, Order};
use fleet_core::submission::{self, Disowned, Submission, Submitted, may_become};
use fleet_core::unit::{Content, Parsed, TargetState, UnitName};

use super::batch::Found;
use super::history::{History, readable, remember, retire};
use super::{Fence, Registry, RegistryError, Result, Wanted};
use crate::store::{Entry, Guard, Write};

/// The maximum number of units: twice as many as were measured on one host (`docs/crowded.md`).
pub const UNITS_MAX: usize = 2_000;

/// How many units one question is about: more notes than that are not shown.
const ASKED: usize = 64;

/// A unit's record, and its place in the store's history.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: UnitRecord,
    /// The store revision that created the unit. Older units win conflicts.
    pub created: u64,
}

impl Stored {
    pub(super) fn read(name: &UnitName, entry: &Entry) -> Result<Self> {
        let record = record::decode(&entry.value);
        let record = record.map_err(|error| RegistryError::Record(name.clone(), error))?;
        Ok(Self {
            record,
            created: entry.created,
        })
    }
}

impl Registry {
    /// Reads one unit.
    pub async fn unit(&self, name: &UnitName) -> Result<Option<Stored>> {
        let key = keys::unit(name);
        let snapshot = self.store.list(&[&key]).await?;
        let entry = snapshot.entries.get(&key);
        entry.map(|entry| Stored::read(name, entry)).transpose()
    }

    /// Returns those of these units that fleet puts on machines. A unit whose record cannot be read
    /// is left out.
    pub async fn on_machines(&self, names: BTreeSet<UnitName>) -> Result<BTreeSet<UnitName>> {
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        let keys: Vec<String> = names.iter().take(ASKED).map(keys::unit).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let snapshot = self.store.list(&keys).await?;
        let is_there = |name: &UnitName| {
            let entry = snapshot.entries.get(&keys::unit(name));
            let unit = entry.and_then(|entry| Stored::read(name, entry).ok());
            unit.is_some_and(|unit| unit.record.target != TargetState::Inactive)
        };
        Ok(names.into_iter().filter(is_there).collect())
    }

    /// Reads a unit with its older revisions by number, or the reason why one cannot be read.
    pub async fn with_history(
        &self,
        name: &UnitName,
    ) -> Result<Option<(Stored, BTreeMap<u64, Result<Past, String>>)>> {
        let prefixes = Found::prefixes(name);
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let snapshot = self.store.list(&prefixes).await?;
        let found = Found::new(name, &snapshot);
        Ok(found.unit()?.map(|unit| (unit, found.history())))
    }

    /// Reads what a units directory needs to know about a unit. `None` if there never was such a
    /// unit, as far as is remembered.
    pub async fn known(&self, name: &UnitName) -> Result<Option<Known>> {
        let snapshot = self
            .store
            .list(&[&keys::unit(name), &keys::seen(name)])
            .await?;
        let found = Found::new(name, &snapshot);
        let seen = found.seen();
        let Some(Stored { record, .. }) = found.unit()? else {
            return Ok(seen.destroyed.map(|_| Known::destroyed(&seen)));
        };
        Ok(Some(Known::of(&record, &readable(&found.history()), &seen)))
    }

    /// Submits a unit file. If `target` is `None`, the unit keeps its target state (`inactive` for
    /// a new unit).
    pub async fn submit(
        &self,
        name: &UnitName,
        content: Content,
        owner: Owner,
        target: Option<TargetState>,
    ) -> Result<Submission> {
        self.submit_over(name, content, owner, target, None).await
    }

    /// Submits a unit file that replaces that revision, and no newer one. `None` replaces any
    /// revision.
    pub async fn submit_over(
        &self,
        name: &UnitName,
        content: Content,
        owner: Owner,
        target: Option<TargetState>,
        replaces: Option<u64>,
    ) -> Result<Submission> {
        self.submit_with(name, content, owner, replaces, move |_| target)
            .await
    }

    /// Submits a unit file of that machine's directory. `target` is for a new unit. An existing
    /// unit keeps its own.
    pub async fn publish(
        &self,
        name: &UnitName,
        content: Content,
        machine: &MachineId,
        target: TargetState,
    ) -> Result<Submission> {
        let owner = Owner::Directory(machine.clone());
        self.submit_with(name, content, owner, None, move |exists| {
            (!exists).then_some(target)
        })
        .await
    }

    async fn submit_with(
        &self,
        name: &UnitName,
        content: Content,
        owner: Owner,
        replaces: Option<u64>,
        target: impl Fn(bool) -> Option<TargetState> + Send + 'static,
    ) -> Result<Submission> {
        let (unit, clock) = (name.clone(), self.clock.clone());
        let decide = move |found: &Found<'_>| {
            let existing = found.unit()?.map(|it| it.record);
            if let Some(replaces) = replaces {
                submission::replaces_newest(&unit, existing.as_ref(), replaces)?;
            }
            let now = clock();
            let submitted = Submitted {
                content: content.clone(),
                owner: owner.clone(),
                target: target(existing.is_some()),
                now,
            };
            let submission = submission::submit(&unit, existing.as_ref(), submitted);
            let mut writes = match &submission {
                Submission::Created(record) => {
                    let seen = remember(&unit, &found.seen(), &History::new(), Some(record), None);
                    seen.into_iter().chain([put(found, record)]).collect()
                }
                Submission::Adopted(record) => vec![put(found, record)],
                Submission::Updated { record, retired } => {
                    let history = found.history();
                    let mut writes = retire(&unit, retired, &history, found.bytes());
                    let seen = remember(&unit, &found.seen(), &history, Some(record), None);
                    writes.extend(seen);
                    writes.push(put(found, record));
                    writes
                }
                Submission::Unchanged => Vec::new(),
            };
            if let Owner::Directory(machine) = &owner {
                writes.extend(own(found, existing.as_ref(), machine, now));
            }
            Ok((submission, writes))
        };
        self.change(name, decide).await
    }

    /// Makes that machine's directory an owner of the unit. If a content is given, the unit's
    /// newest content must equal it. Returns false if it does not. A destroyed unit stays
    /// destroyed.
    pub async fn adopt(
        &self,
        name: &UnitName,
        content: Option<&Fingerprint>,
        machine: &MachineId,
    ) -> Result<bool> {
        let (content, machine, clock) = (content.cloned(), machine.clone(), self.clock.clone());
        let decide = move |found: &Found<'_>| {
            let Some(Stored { record, .. }) = found.unit()? else {
                return Ok((true, Vec::new()));
            };
            let is = Fingerprint::of(&record.newest().content);
            if content.as_ref().is_some_and(|content| *content != is) {
                return Ok((false, Vec::new()));
            }
            let write = own(found, Some(&record), &machine, clock());
            Ok((true, write.into_iter().collect()))
        };
        self.change(name, decide).await
    }

    /// Sets the target state of a unit, if it may have that one. Returns whether the unit exists.
    pub async fn set_target(&self, name: &UnitName, target: TargetState) -> Result<bool> {
        let (unit, clock) = (name.clone(), self.clock.clone());
        let decide = move |found: &Found<'_>| {
            let Some(Stored { record, .. }) = found.unit()? else {
                return Ok((false, Vec::new()));
            };
            let parsed = Parsed::parse(unit.clone(), &record.newest().content);
            may_become(&unit, parsed.options.global, target)?;
            if record.target == target {
                return Ok((true, Vec::new()));
            }
            let record = submission::retarget(&record, target, clock());
            Ok((true, vec![put(found, &record)]))
        };
        self.change(name, decide).await
    }

    /// Removes one directory as an owner of a unit. The unit is destroyed with its last owner.
    /// Returns whether it was destroyed.
    pub async fn disown(&self, name: &UnitName, machine: &MachineId) -> Result<bool> {
        self.retry_unit(name, |found| {
            let Some(Stored { record, .. }) = found.unit()? else {
                return Ok((false, Wanted::default()));
            };
            let owners = found.owners();
            let mut guards = vec![found.guard()];
            let ids = owners.keys().cloned().collect();
            match submission::disown(&record, &ids, machine) {
                Disowned::NotOwned => Ok((false, Wanted::default())),
                Disowned::Left { record, by } => {
                    // If two owners leave at once, each because the other one stays, only one may
                    // leave.
                    let stays = by.and_then(|by| Some((keys::owner(name, &by), *owners.get(&by)?)));
                    guards.extend(stays.map(|(key, at)| Guard::Unmodified(key, at)));
                    let record = record.map(|record| put(found, &record));
                    let mut writes = vec![Write::Delete(keys::owner(name, machine))];
                    writes.extend(record);
                    Ok((false, Wanted { guards, writes }))
                }
                Disowned::Destroyed => {
                    guards.push(Guard::NoneSince(keys::owners_of(name), found.revision()));
                    let writes = destroy(found, (self.clock)());
                    Ok((true, Wanted { guards, writes }))
                }
            }
        })
        .await
    }

    /// Destroys a unit, even if it has owners or its record cannot be read. Returns whether it
    /// existed.
    pub async fn destroy(&self, name: &UnitName) -> Result<bool> {
        self.retry_unit(name, |found| {
            if !found.exists() {
                return Ok((false, Wanted::default()));
            }
            let wanted = Wanted {
                guards: vec![found.guard()],
                writes: destroy(found, (self.clock)()),
            };
            Ok((true, wanted))
        })
        .await
    }

    /// Follows an order about a unit's rollout; see [`rollout::follow`]. Returns `None` if the unit
    /// does not exist.
    pub async fn order(
        &self,
        name: &UnitName,
        order: Order,
        by: &str,
    ) -> Result<Option<UnitRecord>> {
        self.retry_unit(name, |found| {
            let Some(existing) = found.unit()? else {
                return Ok((None, Wanted::default()));
            };
            let history = found.history();
            let past = readable(&history);
            let now = (self.clock)();
            let next = rollout::follow(order, name, &existing.record, &past, by, now)?;
            let mut writes = retire(name, &next.retired, &history, found.bytes());
            writes.push(put(found, &next.record));
            let guards = vec![found.guard()];
            Ok((Some(next.record), Wanted { guards, writes }))
        })
        .await
    }

    async fn retry_unit<T: Send>(
        &self,
        name: &UnitName,
        mut decide: impl FnMut(&Found<'_>) -> Result<(T, Wanted)> + Send,
    ) -> Result<T> {
        let prefixes = Found::prefixes(name);
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        self.retry(&prefixes, Fence::Trust, |snapshot| {
            decide(&Found::new(name, snapshot))
        })
        .await
    }
}

/// Returns the write of a record. It keeps fields that this version does not know.
fn put(found: &Found<'_>, record: &UnitRecord) -> Write {
    Write::Put {
        key: keys::unit(found.name()),
        value: record::encode_over::<UnitRecord, _>(record, found.bytes()),
        lease: None,
    }
}

/// Returns the write that makes a machine's directory an owner. `None` if it is one.
fn own(
    found: &Found<'_>,
    record: Option<&UnitRecord>,
    machine: &MachineId,
    now: u64,
) -> Option<Write> {
    let owner = Owner::Directory(machine.clone());
    let is_recorded = record.is_some_and(|record| record.owners.contains(&owner));
    let is_owner = is_recorded || found.owners().contains_key(machine);
    (!is_owner).then(|| Write::Put {
        key: keys::owner(found.name(), machine),
        value: record::encode(&OwnerRecord { since: now }),
        lease: None,
    })
}

/// Returns the writes that remove a unit, its history and its owners. The contents that it had
/// stay, so that no old copy of its file brings it back.
fn destroy(found: &Found<'_>, now: u64) -> Vec<Write> {
    let name = found.name();
    let record = found.unit().ok().flatten().map(|it| it.record);
    let (seen, history) = (found.seen(), found.history());
    let seen = remember(name, &seen, &history, record.as_ref(), Some(now));
    let writes = [
        Write::Delete(keys::unit(name)),
        Write::DeletePrefix(keys::history_of(name)),
        Write::DeletePrefix(keys::owners_of(name)),
        Write::Put {
            key: keys::DESTROYED.to_owned(),
            value: record::encode(&DestroyedRecord { unit: name.clone() }),
            lease: None,
        },
    ];
    writes.into_iter().chain(seen).collect()
}
