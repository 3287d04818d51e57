//! Settings of machines at run time: metadata, cordon and drain.

use std::collections::BTreeSet;

use fleet_core::keys;
use fleet_core::machine::{METADATA_MAX, MachineId, Scheduling};
use fleet_core::record::{self, MetadataRecord, RecordError};

use super::{Fence, Registry, RegistryError, Result, Wanted};
use crate::store::{Guard, Snapshot, Write};

impl Registry {
    /// Sets what may start on a machine, and returns the previous setting. An offline machine
    /// counts as known.
    pub async fn set_scheduling(
        &self,
        machine: &MachineId,
        scheduling: Scheduling,
    ) -> Result<Scheduling> {
        let key = keys::metadata(machine);
        let prefixes = [keys::MACHINES, keys::KNOWN, &key];
        self.retry(&prefixes, Fence::Trust, |snapshot| {
            let known = known_machines(snapshot);
            // Metadata may exist for a machine that has not joined yet, or that was forgotten.
            if !known.contains(machine) && !snapshot.entries.contains_key(&key) {
                return Err(RegistryError::NoMachine {
                    id: machine.clone(),
                    similar: similar(machine, &known),
                });
            }
            let (guard, mut record) = metadata_of(machine, snapshot)?;
            let entry = snapshot.entries.get(&key);
            let is_readable =
                entry.is_none_or(|it| record::decode::<MetadataRecord>(&it.value).is_ok());
            let before = std::mem::replace(&mut record.scheduling, scheduling);
            if before == scheduling && is_readable {
                return Ok((before, Wanted::default()));
            }
            let wanted = Wanted {
                guards: vec![guard],
                writes: vec![put(machine, &record, snapshot)],
            };
            Ok((before, wanted))
        })
        .await
    }

    /// Refuses machines that never joined: a mistyped id would create metadata that no machine has.
    pub async fn must_know<'a>(&self, machines: impl Iterator<Item = &'a MachineId>) -> Result<()> {
        let machines: BTreeSet<&MachineId> = machines.collect();
        let set: Vec<String> = machines.iter().map(|id| keys::metadata(id)).collect();
        let prefixes = [keys::MACHINES, keys::KNOWN].into_iter();
        let prefixes: Vec<&str> = prefixes.chain(set.iter().map(String::as_str)).collect();
        let snapshot = self.store.list(&prefixes).await?;
        let known = known_machines(&snapshot);
        let unknown = machines.into_iter().zip(&set).find(|(machine, set)| {
            !known.contains(*machine) && !snapshot.entries.contains_key(*set)
        });
        match unknown {
            Some((machine, _)) => Err(RegistryError::NoMachine {
                id: machine.clone(),
                similar: similar(machine, &known),
            }),
            None => Ok(()),
        }
    }

    /// Sets (`Some`) and removes (`None`) metadata of machines, all of it or nothing.
    pub async fn set_metadata(
        &self,
        changes: &[(MachineId, String, Option<String>)],
    ) -> Result<()> {
        let keys: Vec<String> = changes
            .iter()
            .map(|(machine, ..)| keys::metadata(machine))
            .collect();
        let prefixes: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.retry(&prefixes, Fence::Trust, |snapshot| {
            Ok(((), metadata_writes(changes, snapshot)?))
        })
        .await
    }
}

/// Returns the machines that are live or remembered.
fn known_machines(snapshot: &Snapshot) -> BTreeSet<MachineId> {
    let ids = snapshot.entries.keys().filter_map(|key| {
        keys::machine_of(keys::MACHINES, key).or_else(|| keys::machine_of(keys::KNOWN, key))
    });
    ids.collect()
}

/// Returns the machine whose id differs from that one in a few digits only.
fn similar(asked: &MachineId, known: &BTreeSet<MachineId>) -> Option<MachineId> {
    const SLIPS: usize = 4;
    let distance = |id: &MachineId| strsim::osa_distance(asked.as_str(), id.as_str());
    let nearest = known.iter().min_by_key(|id| distance(id))?;
    (distance(nearest) <= SLIPS).then(|| nearest.clone())
}

fn metadata_writes(
    changes: &[(MachineId, String, Option<String>)],
    snapshot: &Snapshot,
) -> Result<Wanted> {
    let mut machines: Vec<&MachineId> = changes.iter().map(|(machine, ..)| machine).collect();
    machines.sort();
    machines.dedup();
    let mut wanted = Wanted::default();
    for machine in machines {
        let (guard, mut record) = metadata_of(machine, snapshot)?;
        for (_, name, value) in changes.iter().filter(|(of, ..)| of == machine) {
            record.set.insert(name.clone(), value.clone());
        }
        if record.set.len() > METADATA_MAX {
            return Err(RegistryError::TooMuchMetadata(machine.clone()));
        }
        wanted.guards.push(guard);
        wanted.writes.push(put(machine, &record, snapshot));
    }
    Ok(wanted)
}

/// Returns a machine's settings, and the guard of a write that changes them.
fn metadata_of(machine: &MachineId, snapshot: &Snapshot) -> Result<(Guard, MetadataRecord)> {
    let key = keys::metadata(machine);
    let Some(entry) = snapshot.entries.get(&key) else {
        return Ok((Guard::Absent(key), MetadataRecord::default()));
    };
    let record = match record::decode(&entry.value) {
        Ok(record) => record,
        // A damaged value is overwritten: it is only metadata, and the operator wants the new one.
        Err(RecordError::Damaged(_)) => MetadataRecord::default(),
        Err(error) => return Err(RegistryError::Metadata(machine.clone(), error)),
    };
    Ok((Guard::Unmodified(key, entry.modified), record))
}

/// Returns the write of a record. It keeps fields that this version does not know.
fn put(machine: &MachineId, record: &MetadataRecord, snapshot: &Snapshot) -> Write {
    let key = keys::metadata(machine);
    let before = snapshot.entries.get(&key).map(|entry| &*entry.value);
    Write::Put {
        value: record::encode_over::<MetadataRecord, _>(record, before),
        key,
        lease: None,
    }
}
