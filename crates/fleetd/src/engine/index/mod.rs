//! What the leader knows of the registry, typed, and what of it is worth a new look.
//!
//! A value that cannot be read is told once, and leaves that one unit or machine out of every
//! decision.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, MachineReport, Progress, RecordError};
use fleet_core::trust::Identity;
use fleet_core::unit::UnitName;
use serde::de::DeserializeOwned;

use super::machine::{Machine, Report, ReportBase, Written};
use super::places::Places;
use super::unit::Unit;
use crate::store::{Batch, Change, Entry, Snapshot, Write};

/// What the leader follows.
pub(super) const PREFIXES: [&str; 9] = [
    keys::CLUSTER,
    keys::ACCEPTANCE,
    keys::UNITS,
    keys::MACHINES,
    keys::METADATA,
    keys::REPORTS,
    keys::GRANTS,
    keys::ROLLOUTS,
    keys::KNOWN,
];

/// What changed since somebody last looked.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Units with something that may matter to their rollout.
    pub(super) units: BTreeSet<UnitName>,
    /// A machine came or went.
    pub(super) presence: bool,
    /// Machines that were offline, and say that they are back.
    pub(super) returned: BTreeSet<MachineId>,
    /// A unit went, or was made anew.
    pub(super) left: bool,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Which registry it is.
    pub(super) identity: Identity,
    pub(super) units: BTreeMap<UnitName, Unit>,
    pub(super) machines: BTreeMap<MachineId, Machine>,
    pub(super) progress: BTreeMap<UnitName, Written<Progress>>,
    pub(super) places: Places,
    pub(super) news: News,
    /// Until when a machine that this leader never saw may be on its way back; none once that is
    /// over.
    pub(super) awaited_until: Option<u64>,
    /// Machines that keep another revision than the stable one of a unit, and wait for their turn.
    deferred: BTreeMap<UnitName, BTreeSet<MachineId>>,
    /// Whether anything was active when somebody last looked, and reports were read for it.
    reads: bool,
    /// What cannot be read, by key.
    problems: BTreeMap<String, String>,
    /// Keys that the leader wrote itself, whose change the watch has not shown yet, and the commits
    /// that wrote them: what the watch shows of them until then is older.
    ahead: BTreeMap<String, u64>,
}

impl Index {
    /// An index of a new leader, which awaits machines until that time by its clock.
    pub(super) fn awaiting(until: u64) -> Self {
        Self {
            awaited_until: Some(until),
            ..Self::default()
        }
    }

    /// Takes all there is.
    pub(super) fn reset(&mut self, snapshot: &Snapshot) {
        let is_there = |key: &str| snapshot.entries.contains_key(key);
        let mut known = std::mem::take(self);
        known.problems.retain(|key, _| is_there(key));
        known.units.retain(|name, _| is_there(&keys::unit(name)));
        // The files need not be parsed again, nor the problems told.
        self.units = known.units;
        self.problems = known.problems;
        self.awaited_until = known.awaited_until;
        let (bases, others): (Vec<_>, Vec<_>) =
            snapshot.entries.iter().partition(|(key, _)| is_base(key));
        for (key, entry) in bases.into_iter().chain(others) {
            self.take(key, Some(entry));
        }
        self.identity.revision = snapshot.revision;
        for (id, _) in known.machines.iter().filter(|(_, it)| it.was_here) {
            if let Some(machine) = self.machines.get_mut(id) {
                machine.was_here = true;
            }
        }
        let came_back = known.machines.iter().filter(|(id, before)| {
            let now = self.machines.get(*id).filter(|now| now.known.is_some());
            before.is_noted_offline() && now.is_some_and(|now| !now.is_noted_offline())
        });
        self.news.returned = came_back.map(|(id, _)| id.clone()).collect();
        self.news.returned.append(&mut known.news.returned);
        self.news.presence = true;
        self.news.left = true;
    }

    /// Takes one commit of somebody's.
    pub(super) fn apply(&mut self, batch: Batch) {
        let (bases, others): (Vec<_>, Vec<_>) = batch
            .changes
            .into_iter()
            .partition(|change| is_base(change.key()));
        for change in bases.into_iter().chain(others) {
            let (key, entry) = match &change {
                Change::Put(key, entry) => (key, Some(entry)),
                Change::Delete(key) => (key, None),
            };
            let ahead = self.ahead.get(key).copied().unwrap_or(0);
            if batch.revision >= ahead {
                self.ahead.remove(key);
            }
            // Up to the leader's own commit there is nothing new in it.
            if batch.revision > ahead {
                self.take(key, entry);
            }
        }
    }

    /// Takes what the leader wrote itself, with the revision of that commit.
    pub(super) fn wrote(&mut self, writes: Vec<Write>, revision: u64) {
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let unit = keys::unit_of(&key).and_then(|name| self.units.get(&name));
                    let entry = Entry {
                        value: value.into(),
                        created: unit.map_or(revision, |unit| unit.created),
                        modified: revision,
                        lease,
                    };
                    self.wrote_key(key, Some(&entry), revision);
                }
                Write::Delete(key) => self.wrote_key(key, None, revision),
                Write::DeletePrefix(prefix) => {
                    for key in self.grants_below(&prefix) {
                        self.wrote_key(key, None, revision);
                    }
                }
            }
        }
    }

    fn wrote_key(&mut self, key: String, entry: Option<&Entry>, revision: u64) {
        if PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
            self.take(&key, entry);
            self.ahead.insert(key, revision);
        }
    }

    fn grants_below(&self, prefix: &str) -> Vec<String> {
        let id = prefix
            .strip_prefix(keys::GRANTS)
            .and_then(|rest| MachineId::parse(rest.strip_suffix('/')?).ok());
        let Some((id, machine)) = id.and_then(|id| self.machines.get_key_value(&id)) else {
            return Vec::new();
        };
        let names = machine.grants.keys();
        names.map(|name| keys::grant(id, name)).collect()
    }

    /// Why the key cannot be read.
    pub(super) fn problem(&self, key: &str) -> &str {
        self.problems.get(key).map_or("", String::as_str)
    }

    /// Whether anything may be left to do for a unit. For all others the leader does no work at
    /// all.
    pub(super) fn is_active(&self, name: &UnitName) -> bool {
        let progress = self.progress.get(name);
        if progress.is_some_and(|progress| progress.is_newer) {
            // Every step would write over it: a newer engine is to go on.
            return false;
        }
        let unit = self.units.get(name);
        unit.is_some_and(|unit| unit.record.candidate.is_some() || self.deferred.contains_key(name))
    }

    /// Whether the unit is still there; if it is known which store revision made it, that one. One
    /// that cannot be read may be.
    pub(super) fn exists(&self, name: &UnitName, created: Option<u64>) -> bool {
        match self.units.get(name) {
            Some(unit) => created.is_none_or(|created| created == unit.created),
            None => self.problems.contains_key(&keys::unit(name)),
        }
    }

    /// Takes what a key holds now; none if it is gone.
    fn take(&mut self, key: &str, entry: Option<&Entry>) {
        match self.read(key, entry) {
            Ok(()) => {
                self.problems.remove(key);
            }
            Err(error) => {
                let error = error.to_string();
                if self.problems.get(key) != Some(&error) {
                    tracing::warn!("{key} is left out of every decision: {error}");
                    self.problems.insert(key.to_owned(), error);
                }
            }
        }
    }

    /// Keys of any other form are none of ours.
    fn read(&mut self, key: &str, entry: Option<&Entry>) -> Result<(), RecordError> {
        let told = entry.map(|entry| (&*entry.value, entry.created, entry.modified));
        if let Some(read) = self.identity.take(key, told) {
            return read;
        }
        if let Some(name) = keys::unit_of(key) {
            return self.set_unit(name, entry);
        }
        if let Some(name) = keys::rollout_of(key) {
            let (progress, read) = decode(entry);
            match progress {
                Some(progress) => self.progress.insert(name.clone(), progress),
                None => self.progress.remove(&name),
            };
            self.news.units.insert(name);
            return read;
        }
        if let Some((id, name)) = keys::grant_of(key) {
            let (grant, read) = decode(entry);
            let grants = &mut self.machines.entry(id.clone()).or_default().grants;
            match grant {
                Some(grant) => grants.insert(name.clone(), grant),
                None => grants.remove(&name),
            };
            self.news.units.insert(name);
            self.drop_if_empty(&id);
            return read;
        }
        if let Some(id) = keys::report_base_of(key) {
            let machine = self.machines.entry(id.clone()).or_default();
            machine.report_base = entry.map(ReportBase::new);
            self.drop_if_empty(&id);
            return Ok(());
        }
        let kinds = [keys::MACHINES, keys::METADATA, keys::REPORTS, keys::KNOWN];
        let machine = kinds
            .iter()
            .find_map(|kind| Some((*kind, keys::machine_of(kind, key)?)));
        let Some((kind, id)) = machine else {
            return Ok(());
        };
        let read = self.set_machine(kind, &id, entry);
        self.drop_if_empty(&id);
        read
    }

    fn set_unit(&mut self, name: UnitName, entry: Option<&Entry>) -> Result<(), RecordError> {
        let before = self.units.remove(&name);
        let record = entry.map(|entry| (record::decode(&entry.value), entry));
        let (unit, read) = match record {
            Some((Ok(record), entry)) => {
                let unit = Unit::new(&name, record, entry, before.as_ref());
                (Some(unit), Ok(()))
            }
            Some((Err(error), _)) => (None, Err(error)),
            None => (None, Ok(())),
        };
        let same = match (&before, &unit) {
            (Some(before), Some(unit)) => unit.places_like(before),
            (before, unit) => before.is_none() && unit.is_none(),
        };
        if !same {
            // A unit that keeps others away moves them too.
            self.places = Places::default();
            for machine in self.machines.values_mut() {
                machine.belongs = None;
            }
            self.look_at_all();
        }
        self.news.left |= before
            .is_some_and(|before| unit.as_ref().map(|unit| unit.created) != Some(before.created));
        if let Some(unit) = unit {
            self.units.insert(name.clone(), unit);
        }
        self.news.units.insert(name);
        read
    }

    fn set_machine(
        &mut self,
        kind: &str,
        id: &MachineId,
        entry: Option<&Entry>,
    ) -> Result<(), RecordError> {
        let machine = self.machines.entry(id.clone()).or_default();
        let read;
        match kind {
            keys::REPORTS => {
                let base = &machine.report_base;
                let report = entry.map(|entry| Report::new(entry, base.clone()));
                let may_defer = report.as_ref().is_some_and(Report::may_defer);
                let before = std::mem::replace(&mut machine.report, report);
                let presence = machine.presence.as_ref();
                // A presence that no lease ends is to be cleared away.
                self.news.left |= machine.report.is_none()
                    && presence.is_some_and(|presence| presence.value.is_none());
                if may_defer || self.anything_is_active() {
                    self.compare_reports(id, before);
                    let report = self.machines[id].report.as_ref();
                    if let Some(report) = report.filter(|report| report.value().is_none()) {
                        return report.decode().map(drop);
                    }
                }
                return Ok(());
            }
            keys::MACHINES => {
                (machine.presence, read) = decode(entry);
                machine.was_here |= machine.presence.is_some();
                self.news.presence = true;
            }
            keys::METADATA => (machine.metadata, read) = decode(entry),
            _ => {
                let was_offline = machine.is_noted_offline();
                (machine.known, read) = decode(entry);
                if was_offline && machine.known.is_some() && !machine.is_noted_offline() {
                    self.news.returned.insert(id.clone());
                }
                self.news.presence = true;
                // Where there is no presence, or none that can be read, this says what units select
                // it by.
                let is_readable = |presence: &Written<_>| presence.value.is_some();
                if machine.presence.as_ref().is_some_and(is_readable) {
                    return read;
                }
            }
        }
        machine.belongs = None;
        self.look_at_all();
        read
    }

    /// Once nothing is active any more, forgets what reports say: of thousands of machines that is
    /// a good part of a leader's memory.
    pub(super) fn rest(&mut self) {
        let is_active = self.anything_is_active();
        if std::mem::replace(&mut self.reads, is_active) && !is_active {
            let reports = self
                .machines
                .values_mut()
                .filter_map(|it| it.report.as_mut());
            reports.for_each(Report::forget);
        }
    }

    /// Whether something may be left to do for any unit; see [`Index::is_active`].
    fn anything_is_active(&self) -> bool {
        let mut units = self.units.values();
        !self.deferred.is_empty() || units.any(|unit| unit.record.candidate.is_some())
    }

    fn compare_reports(&mut self, id: &MachineId, before: Option<Report>) {
        let report = self.machines.get(id).and_then(|it| it.report.as_ref());
        let before = before.as_ref().and_then(Report::value);
        let after = report.and_then(Report::value);
        if before.is_some() != after.is_some() {
            self.look_at_all();
        }
        let report = self.machines.get(id).and_then(|it| it.report.as_ref());
        let nothing = MachineReport::default();
        let before = before.unwrap_or(&nothing);
        let after = report.and_then(Report::value).unwrap_or(&nothing);
        for (name, unit) in &before.units {
            if unit.deferred
                && let Some(machines) = self.deferred.get_mut(name)
            {
                machines.remove(id);
                if machines.is_empty() {
                    self.deferred.remove(name);
                }
            }
            if after.units.get(name) != Some(unit) {
                self.news.units.insert(name.clone());
            }
        }
        for (name, unit) in &after.units {
            if unit.deferred {
                let machines = self.deferred.entry(name.clone()).or_default();
                machines.insert(id.clone());
            }
            if !before.units.contains_key(name) {
                self.news.units.insert(name.clone());
            }
        }
        if before.problems != after.problems {
            self.look_at_all();
        }
    }

    fn drop_if_empty(&mut self, id: &MachineId) {
        if self.machines.get(id).is_some_and(Machine::is_empty) {
            self.machines.remove(id);
        }
    }

    /// Machines that are not back by now are offline.
    pub(super) fn end_waiting(&mut self) {
        self.awaited_until = None;
        self.look_at_all();
    }

    fn look_at_all(&mut self) {
        let rolling = self.units.iter();
        let rolling = rolling.filter(|(_, unit)| unit.record.candidate.is_some());
        let names = rolling.map(|(name, _)| name).chain(self.deferred.keys());
        self.news.units.extend(names.cloned());
    }
}

/// Whether reports are written over it. Where one commit wrote both, it is taken first.
fn is_base(key: &str) -> bool {
    keys::report_base_of(key).is_some()
}

/// A value that is there, readable or not.
fn decode<T: DeserializeOwned>(
    entry: Option<&Entry>,
) -> (Option<Written<T>>, Result<(), RecordError>) {
    let Some(entry) = entry else {
        return (None, Ok(()));
    };
    let (value, read) = match record::decode(&entry.value) {
        Ok(value) => (Some(value), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let is_newer = matches!(read, Err(RecordError::Newer(_)));
    let at = entry.modified;
    let written = Written {
        value,
        is_newer,
        at,
    };
    (Some(written), read)
}
