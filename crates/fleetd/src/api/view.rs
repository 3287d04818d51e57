//! The registry as one reader sees it: everything at one revision, typed.

use std::collections::BTreeMap;

use fleet_core::api::Problem;
use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata, overlay};
use fleet_core::place::{Placeable, Verdict, place};
use fleet_core::record::{
    self, ClusterRecord, LeaderRecord, MachineRecord, MachineReport, MetadataRecord, UnitRecord,
};
use fleet_core::unit::{Parsed, UnitName};
use serde::de::DeserializeOwned;

use crate::store::{Result, Snapshot, Store};

/// A unit with its stable revision parsed.
pub(super) struct ViewedUnit {
    pub(super) record: UnitRecord,
    pub(super) parsed: Parsed,
    created: u64,
}

/// A live machine.
pub(super) struct ViewedMachine {
    pub(super) primary_ip: String,
    /// As units see it.
    pub(super) metadata: Metadata,
    /// Of its fleetd.
    pub(super) version: String,
}

/// Everything that was asked for; what was not is empty.
pub(super) struct View {
    pub(super) revision: u64,
    pub(super) units: BTreeMap<UnitName, ViewedUnit>,
    pub(super) machines: BTreeMap<MachineId, ViewedMachine>,
    pub(super) reports: BTreeMap<MachineId, MachineReport>,
    pub(super) cluster: Option<String>,
    pub(super) leader: Option<MachineId>,
    /// Values that cannot be read. They are left out above, and hide nothing else.
    pub(super) damaged: Vec<Problem>,
}

/// The prefixes of live machines and their metadata.
pub(super) const MACHINES: [&str; 2] = [keys::MACHINES, keys::METADATA];

impl View {
    /// Reads these prefixes at one revision.
    pub(super) async fn read(store: &dyn Store, prefixes: &[&str]) -> Result<Self> {
        Ok(Self::of(store.list(prefixes).await?))
    }

    fn of(snapshot: Snapshot) -> Self {
        let mut damaged = Vec::new();
        let records = Records {
            snapshot: &snapshot,
            damaged: &mut damaged,
        };
        records.view()
    }

    /// Where each unit belongs, for a machine with that metadata.
    pub(super) fn place(&self, metadata: &Metadata) -> BTreeMap<UnitName, Verdict> {
        let placeables = self.units.iter().map(|(name, unit)| Placeable {
            name,
            created: unit.created,
            target: unit.record.target,
            options: &unit.parsed.options,
        });
        place(placeables, metadata)
    }
}

struct Records<'a> {
    snapshot: &'a Snapshot,
    damaged: &'a mut Vec<Problem>,
}

impl Records<'_> {
    fn view(mut self) -> View {
        let units = self.all(keys::UNITS, keys::unit_of);
        let set: BTreeMap<MachineId, (MetadataRecord, u64)> = self.machines(keys::METADATA);
        let machines = self.machines::<MachineRecord>(keys::MACHINES);
        View {
            units: units
                .into_iter()
                .map(|(name, (record, created))| (name.clone(), viewed(name, record, created)))
                .collect(),
            machines: machines
                .into_iter()
                .map(|(id, (machine, _))| {
                    let metadata = match set.get(&id) {
                        Some((set, _)) => overlay(&machine.metadata, &set.set),
                        None => machine.metadata,
                    };
                    let (primary_ip, version) = (machine.primary_ip, machine.version);
                    (
                        id,
                        ViewedMachine {
                            primary_ip,
                            metadata,
                            version,
                        },
                    )
                })
                .collect(),
            reports: self
                .machines(keys::REPORTS)
                .into_iter()
                .map(|(id, (report, _))| (id, report))
                .collect(),
            cluster: self
                .one(keys::CLUSTER)
                .map(|cluster: ClusterRecord| cluster.id),
            leader: self
                .one(keys::LEADER)
                .map(|leader: LeaderRecord| leader.machine),
            revision: self.snapshot.revision,
            damaged: std::mem::take(self.damaged),
        }
    }

    fn machines<T: DeserializeOwned>(&mut self, prefix: &str) -> BTreeMap<MachineId, (T, u64)> {
        self.all(prefix, |key| keys::machine_of(prefix, key))
    }

    fn all<K: Ord, T: DeserializeOwned>(
        &mut self,
        prefix: &str,
        name: impl Fn(&str) -> Option<K>,
    ) -> BTreeMap<K, (T, u64)> {
        let below = self
            .snapshot
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix));
        let mut found = BTreeMap::new();
        for (key, entry) in below {
            let Some(named) = name(key) else { continue };
            match record::decode(&entry.value) {
                Ok(value) => {
                    found.insert(named, (value, entry.created));
                }
                Err(error) => self.damaged.push(Problem {
                    machine_id: String::new(),
                    subject: key.clone(),
                    text: error.to_string(),
                }),
            }
        }
        found
    }

    fn one<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let named = |found: &str| (found == key).then_some(());
        self.all(key, named).remove(&()).map(|(value, _)| value)
    }
}

fn viewed(name: UnitName, record: UnitRecord, created: u64) -> ViewedUnit {
    ViewedUnit {
        parsed: Parsed::parse(name, &record.stable.content),
        record,
        created,
    }
}
