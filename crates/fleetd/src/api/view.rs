//! A typed view of the registry, at one revision.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use fleet_core::api::Problem;
use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata, Scheduling, overlay};
use fleet_core::place::{Placeable, Verdict, place};
use fleet_core::problem::ProblemKind;
use fleet_core::record::{
    self, AcceptanceRecord, ClusterRecord, Grant, Known, LeaderRecord, MachineRecord,
    MachineReport, MetadataRecord, Past, Progress, RecordError, Revision, UnitRecord,
};
use fleet_core::rollout::{Phase, Presence};
use fleet_core::unit::{Parsed, UnitName};
use serde::de::DeserializeOwned;

use super::apart;
use super::reports::reports_in;
use crate::store::{Entry, Result, Snapshot, Store};

/// A unit and its revisions, each parsed when it is first used.
pub(super) struct ViewedUnit {
    pub(super) record: UnitRecord,
    pub(super) created: u64,
    name: UnitName,
    stable: OnceLock<Parsed>,
    candidate: OnceLock<Parsed>,
}

impl ViewedUnit {
    fn new(name: UnitName, record: UnitRecord, created: u64) -> Self {
        Self {
            record,
            created,
            name,
            stable: OnceLock::new(),
            candidate: OnceLock::new(),
        }
    }

    /// Returns the revision that a rollout does not replace before it is done.
    pub(super) fn stable(&self) -> &Parsed {
        self.parsed(&self.stable, &self.record.stable)
    }

    /// Returns the newest revision.
    pub(super) fn newest(&self) -> &Parsed {
        match &self.record.candidate {
            Some(candidate) => self.parsed(&self.candidate, &candidate.revision),
            None => self.stable(),
        }
    }

    /// Returns the revision that machines are moving to.
    pub(super) fn heading(&self) -> &Parsed {
        match &self.record.candidate {
            Some(candidate) if candidate.phase == Phase::RollingBack => self.stable(),
            _ => self.newest(),
        }
    }

    fn parsed<'a>(&'a self, cell: &'a OnceLock<Parsed>, revision: &Revision) -> &'a Parsed {
        cell.get_or_init(|| Parsed::parse(self.name.clone(), &revision.content))
    }
}

/// A live or an offline machine.
pub(super) struct ViewedMachine {
    pub(super) primary_ip: String,
    /// The metadata that units match.
    pub(super) metadata: Metadata,
    pub(super) scheduling: Scheduling,
    pub(super) presence: Presence,
    /// The version of its fleetd.
    pub(super) version: String,
}

/// The values that were read. All others are empty.
pub(super) struct View {
    pub(super) revision: u64,
    pub(super) units: BTreeMap<UnitName, ViewedUnit>,
    /// The live machines.
    pub(super) machines: BTreeMap<MachineId, ViewedMachine>,
    /// The offline machines that are remembered.
    pub(super) offline: BTreeMap<MachineId, ViewedMachine>,
    /// Machines that stand aside because a live machine has their id, with that id.
    pub(super) twins: Vec<(MachineId, MachineRecord)>,
    /// The reports, on all units or only on the requested one.
    pub(super) reports: BTreeMap<MachineId, MachineReport>,
    /// The grants, with the store revisions that wrote them.
    pub(super) grants: BTreeMap<(MachineId, UnitName), (Grant, u64)>,
    pub(super) progress: BTreeMap<UnitName, Progress>,
    pub(super) history: BTreeMap<(UnitName, u64), Past>,
    pub(super) cluster: Option<String>,
    pub(super) leader: Option<MachineId>,
    /// Machines whose state is unknown because their presence or report cannot be read, with the
    /// reason.
    pub(super) unreadable: BTreeMap<MachineId, String>,
    /// Values that cannot be read. They are missing above, and hide nothing else.
    pub(super) damaged: Vec<Problem>,
}

impl View {
    /// Reads these prefixes at one revision.
    pub(super) async fn read(store: &dyn Store, prefixes: &[&str]) -> Result<Self> {
        Self::listed(store, prefixes, None).await
    }

    /// Reads these prefixes at one revision, with the reports on one unit only.
    pub(super) async fn of_unit(
        store: &dyn Store,
        prefixes: &[&str],
        name: &UnitName,
    ) -> Result<Self> {
        Self::listed(store, prefixes, Some(name.clone())).await
    }

    async fn listed(store: &dyn Store, prefixes: &[&str], only: Option<UnitName>) -> Result<Self> {
        let snapshot = store.list(prefixes).await?;
        Ok(apart(move || Self::of(&snapshot, only.as_ref())).await)
    }

    /// Reads the live machines and their metadata. If a presence cannot be read, it also reads what
    /// is remembered of machines.
    pub(super) async fn machines(store: &dyn Store) -> Result<Self> {
        let view = Self::read(store, &[keys::MACHINES, keys::METADATA]).await?;
        if view.unreadable.is_empty() {
            return Ok(view);
        }
        Self::read(store, &[keys::MACHINES, keys::METADATA, keys::KNOWN]).await
    }

    fn of(snapshot: &Snapshot, only: Option<&UnitName>) -> Self {
        let records = Records {
            snapshot,
            only,
            damaged: Vec::new(),
        };
        records.view()
    }

    /// Returns every machine, live and offline, ordered by id.
    pub(super) fn all_machines(&self) -> BTreeMap<&MachineId, &ViewedMachine> {
        self.machines.iter().chain(&self.offline).collect()
    }

    /// Returns the units as they are placed, by the revision that machines are moving to.
    pub(super) fn placeables(&self) -> impl Iterator<Item = Placeable<'_>> {
        self.units.iter().map(|(name, unit)| Placeable {
            name,
            created: unit.created,
            target: unit.record.target,
            options: &unit.heading().options,
        })
    }

    /// Returns where each unit belongs, for a machine with that metadata.
    pub(super) fn place(&self, metadata: &Metadata) -> BTreeMap<UnitName, Verdict> {
        place(self.placeables(), metadata)
    }
}

struct Records<'a> {
    snapshot: &'a Snapshot,
    /// The unit to read from reports. `None` for all units.
    only: Option<&'a UnitName>,
    damaged: Vec<Problem>,
}

impl<'a> Records<'a> {
    fn view(mut self) -> View {
        let units = self.all(keys::UNITS, keys::unit_of);
        let set: BTreeMap<MachineId, MetadataRecord> = self.machines(keys::METADATA);
        let mut machines = self.machines::<MachineRecord>(keys::MACHINES);
        let known = self.machines::<Known>(keys::KNOWN);
        // A machine whose presence cannot be read is live. What it said when it joined is
        // remembered.
        for (id, known) in &known {
            if self.snapshot.entries.contains_key(&keys::machine(id)) {
                let machine = || known.machine.clone();
                machines.entry(id.clone()).or_insert_with(machine);
            }
        }
        let viewed = |id: &MachineId, machine: MachineRecord, presence| {
            let set = set.get(id);
            ViewedMachine {
                primary_ip: machine.primary_ip,
                version: machine.version,
                metadata: match set {
                    Some(set) => overlay(&machine.metadata, &set.set),
                    None => machine.metadata,
                },
                scheduling: set.map(|set| set.scheduling).unwrap_or_default(),
                presence,
            }
        };
        // Read only to report a problem with it.
        let _: Option<AcceptanceRecord> = self.one(keys::ACCEPTANCE);
        View {
            units: units
                .into_iter()
                .map(|(name, (record, entry))| {
                    (name.clone(), ViewedUnit::new(name, record, entry.created))
                })
                .collect(),
            offline: known
                .into_iter()
                .filter(|(id, _)| !machines.contains_key(id))
                .map(|(id, known)| {
                    let presence = Presence::Offline(known.offline_since);
                    let machine = viewed(&id, known.machine, presence);
                    (id, machine)
                })
                .collect(),
            machines: machines
                .into_iter()
                .map(|(id, machine)| {
                    let presence = Presence::Live(machine.session);
                    let machine = viewed(&id, machine, presence);
                    (id, machine)
                })
                .collect(),
            twins: self
                .values(keys::MACHINES, keys::twin_of)
                .into_iter()
                .map(|((id, _), twin)| (id, twin))
                .collect(),
            reports: self.reports(),
            grants: self
                .all(keys::GRANTS, keys::grant_of)
                .into_iter()
                .map(|(key, (grant, entry))| (key, (grant, entry.modified)))
                .collect(),
            progress: self.values(keys::ROLLOUTS, keys::rollout_of),
            history: self.values(keys::HISTORY, keys::past_of),
            cluster: self
                .one(keys::CLUSTER)
                .map(|cluster: ClusterRecord| cluster.id),
            leader: self
                .one(keys::LEADER)
                .map(|leader: LeaderRecord| leader.machine),
            revision: self.snapshot.revision,
            unreadable: self.unreadable(),
            damaged: self.damaged,
        }
    }

    fn unreadable(&self) -> BTreeMap<MachineId, String> {
        let machine = |problem: &Problem| {
            let kinds = [keys::MACHINES, keys::REPORTS];
            kinds
                .iter()
                .find_map(|kind| keys::machine_of(kind, &problem.subject))
        };
        let problems = self.damaged.iter();
        problems
            .filter_map(|problem| Some((machine(problem)?, problem.text.clone())))
            .collect()
    }

    fn machines<T: DeserializeOwned>(&mut self, prefix: &str) -> BTreeMap<MachineId, T> {
        self.values(prefix, |key| keys::machine_of(prefix, key))
    }

    fn reports(&mut self) -> BTreeMap<MachineId, MachineReport> {
        let mut found = BTreeMap::new();
        for report in reports_in(self.snapshot) {
            let read = match self.only {
                Some(name) => report.decode_of(name),
                None => report.decode(),
            };
            match read {
                Ok(said) => {
                    found.insert(report.machine, said);
                }
                Err(error) => self.damaged(&keys::report(&report.machine), &error),
            }
        }
        found
    }

    fn damaged(&mut self, key: &str, error: &RecordError) {
        self.damaged.push(Problem {
            kind: ProblemKind::Other,
            machine_id: String::new(),
            subject: key.to_owned(),
            text: error.to_string(),
        });
    }

    fn values<K: Ord, T: DeserializeOwned>(
        &mut self,
        prefix: &str,
        name: impl Fn(&str) -> Option<K>,
    ) -> BTreeMap<K, T> {
        let all = self.all(prefix, name).into_iter();
        all.map(|(named, (value, _))| (named, value)).collect()
    }

    fn all<K: Ord, T: DeserializeOwned>(
        &mut self,
        prefix: &str,
        name: impl Fn(&str) -> Option<K>,
    ) -> BTreeMap<K, (T, &'a Entry)> {
        let snapshot = self.snapshot;
        let below = snapshot
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix));
        let mut found = BTreeMap::new();
        for (key, entry) in below {
            let Some(named) = name(key) else { continue };
            match record::decode(&entry.value) {
                Ok(value) => {
                    found.insert(named, (value, entry));
                }
                Err(error) => self.damaged(key, &error),
            }
        }
        found
    }

    fn one<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let named = |found: &str| (found == key).then_some(());
        self.all(key, named).remove(&()).map(|(value, _)| value)
    }
}
