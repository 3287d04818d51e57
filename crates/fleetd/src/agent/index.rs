//! What the registry says, as far as it concerns one machine.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata, overlay};
use fleet_core::place::{Placeable, Verdict, conflict, place};
use fleet_core::plan::Desired;
use fleet_core::record::{self, ClusterRecord, MetadataRecord, TargetState, UnitRecord};
use fleet_core::unit::{Parsed, UnitName};

use crate::store::{Batch, Change, Entry, Snapshot};

/// The prefixes that concern the machine.
pub(super) fn prefixes(me: &MachineId) -> Vec<String> {
    vec![
        keys::CLUSTER.to_owned(),
        keys::UNITS.to_owned(),
        keys::metadata(me),
    ]
}

#[derive(Debug)]
struct Indexed {
    record: UnitRecord,
    created: u64,
    parsed: Parsed,
    /// What a running process depends on.
    process: String,
}

impl Indexed {
    fn installs(&self) -> bool {
        let mut assignments = self.parsed.file.assignments().iter();
        assignments.any(|assignment| assignment.section == "Install")
    }

    fn placeable<'a>(&'a self, name: &'a UnitName) -> Placeable<'a> {
        Placeable {
            name,
            created: self.created,
            target: self.record.target,
            options: &self.parsed.options,
        }
    }

    /// `rivals`: the units that may conflict with it.
    fn desired(&self, name: &UnitName, rivals: &[Placeable<'_>]) -> Desired {
        let this = self.placeable(name);
        let excludes: BTreeSet<UnitName> = rivals
            .iter()
            .filter(|other| other.name != name && conflict(&this, other))
            .map(|other| other.name.clone())
            .collect();
        Desired {
            revision: self.record.stable.number,
            content: self.record.stable.content.clone(),
            process: self.process.clone(),
            install: self.installs(),
            launch: self.record.target == TargetState::Launched,
            excludes,
        }
    }
}

/// The index. Values that cannot be read leave that one unit as it is and are told as problems.
#[derive(Debug)]
pub(super) struct Index {
    me: MachineId,
    own: Metadata,
    units: BTreeMap<UnitName, Indexed>,
    set: MetadataRecord,
    /// The registry's id.
    pub(super) cluster: Option<String>,
    /// The store revision that all of it stands at.
    pub(super) revision: u64,
    /// What could not be read, by key.
    pub(super) problems: BTreeMap<String, String>,
    /// Whether the last unit went by an event, and no list has told since what else there is. Each prefix has a watch
    /// of its own: a wiped registry may show its units' going before its id's.
    pub(super) emptied: bool,
}

impl Index {
    /// An index of nothing, for a machine with that metadata of its own.
    pub(super) fn new(me: MachineId, own: Metadata) -> Self {
        Self {
            me,
            own,
            units: BTreeMap::new(),
            set: MetadataRecord::default(),
            cluster: None,
            revision: 0,
            problems: BTreeMap::new(),
            emptied: false,
        }
    }

    /// Whether what is set for the machine cannot be read.
    pub(super) fn metadata_is_damaged(&self) -> bool {
        self.problems.contains_key(&keys::metadata(&self.me))
    }

    /// Takes all there is.
    pub(super) fn reset(&mut self, snapshot: Snapshot) {
        self.units
            .retain(|name, _| snapshot.entries.contains_key(&keys::unit(name)));
        self.set = MetadataRecord::default();
        self.cluster = None;
        self.problems.clear();
        for (key, entry) in snapshot.entries {
            self.put(&key, &entry);
        }
        self.revision = snapshot.revision;
        self.emptied = false;
    }

    /// Takes one commit.
    pub(super) fn apply(&mut self, batch: Batch) {
        let had_units = !self.units.is_empty();
        for change in batch.changes {
            match change {
                Change::Put(key, entry) => self.put(&key, &entry),
                Change::Delete(key) => self.delete(&key),
            }
        }
        self.emptied = self.units.is_empty() && (self.emptied || had_units);
        // Commits may come out of order between prefixes; a registry that went back shows when it is listed.
        self.revision = self.revision.max(batch.revision);
    }

    fn put(&mut self, key: &str, entry: &Entry) {
        let read = match key {
            keys::CLUSTER => record::decode::<ClusterRecord>(&entry.value)
                .map(|cluster| self.cluster = Some(cluster.id)),
            _ if key == keys::metadata(&self.me) => {
                record::decode(&entry.value).map(|record| self.set = record)
            }
            _ => match keys::unit_of(key) {
                Some(name) => record::decode(&entry.value)
                    .map(|record| self.put_unit(name, record, entry.created)),
                // A whole-key prefix matches longer keys too; those are none of ours.
                None => return,
            },
        };
        match read {
            Ok(()) => self.problems.remove(key),
            Err(error) => self.problems.insert(key.to_owned(), error.to_string()),
        };
    }

    fn put_unit(&mut self, name: UnitName, record: UnitRecord, created: u64) {
        let indexed = match self.units.remove(&name) {
            Some(known)
                if known.record.stable.content == record.stable.content
                    && known.record.stable.restarts == record.stable.restarts =>
            {
                Indexed {
                    record,
                    created,
                    ..known
                }
            }
            _ => {
                let parsed = Parsed::parse(name.clone(), &record.stable.content);
                Indexed {
                    process: record.stable.process(&parsed.file),
                    record,
                    created,
                    parsed,
                }
            }
        };
        self.units.insert(name, indexed);
    }

    fn delete(&mut self, key: &str) {
        self.problems.remove(key);
        if key == keys::CLUSTER {
            self.cluster = None;
        } else if key == keys::metadata(&self.me) {
            self.set = MetadataRecord::default();
        } else if let Some(name) = keys::unit_of(key) {
            self.units.remove(&name);
        }
    }

    /// What the machine should have. `present` is what it should have had so far: a unit whose record cannot be
    /// read stays as it was.
    pub(super) fn desired(
        &self,
        present: &BTreeMap<UnitName, Desired>,
    ) -> BTreeMap<UnitName, Desired> {
        let metadata = overlay(&self.own, &self.set.set);
        let verdicts = place(self.placeables(), &metadata);
        let all: Vec<Placeable<'_>> = self.placeables().collect();
        let excluding = all.iter().filter(|unit| !unit.options.conflicts.is_empty());
        let excluding: Vec<Placeable<'_>> = excluding.copied().collect();
        let mut desired: BTreeMap<UnitName, Desired> = self
            .units
            .iter()
            .filter(|(name, _)| verdicts.get(*name) == Some(&Verdict::Run))
            .map(|(name, indexed)| {
                // As in `place`: a unit that excludes none is held against those that do.
                let free = indexed.parsed.options.conflicts.is_empty();
                let rivals = if free { &excluding } else { &all };
                (name.clone(), indexed.desired(name, rivals))
            })
            .collect();
        for name in self.problems.keys().filter_map(|key| keys::unit_of(key)) {
            if let Some(kept) = present.get(&name) {
                desired.insert(name, kept.clone());
            }
        }
        desired
    }

    fn placeables(&self) -> impl Iterator<Item = Placeable<'_>> {
        self.units
            .iter()
            .map(|(name, indexed)| indexed.placeable(name))
    }
}
