//! The registry as one reader sees it: everything at one revision, typed.

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

/// A unit, and its revisions, each parsed when it is first asked for.
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

    /// The revision that no rollout changes before it is done.
    pub(super) fn stable(&self) -> &Parsed {
        self.parsed(&self.stable, &self.record.stable)
    }

    /// The newest revision.
    pub(super) fn newest(&self) -> &Parsed {
        match &self.record.candidate {
            Some(candidate) => self.parsed(&self.candidate, &candidate.revision),
            None => self.stable(),
        }
    }

    /// The revision that machines are on the way to.
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

/// A machine that is here, or was.
pub(super) struct ViewedMachine {
    pub(super) primary_ip: String,
    /// As units see it.
    pub(super) metadata: Metadata,
    pub(super) scheduling: Scheduling,
    pub(super) presence: Presence,
    /// The version of its fleetd.
    pub(super) version: String,
}

/// Everything that was asked for; what was not is empty.
pub(super) struct View {
    pub(super) revision: u64,
    pub(super) units: BTreeMap<UnitName, ViewedUnit>,
    /// Those that are here.
    pub(super) machines: BTreeMap<MachineId, ViewedMachine>,
    /// Those that are remembered, and not here.
    pub(super) offline: BTreeMap<MachineId, ViewedMachine>,
    /// Machines that stand aside because a live one has their id, with that id.
    pub(super) twins: Vec<(MachineId, MachineRecord)>,
    /// The units, all or the requested one.
    pub(super) reports: BTreeMap<MachineId, MachineReport>,
    /// With the store revisions that wrote them.
    pub(super) grants: BTreeMap<(MachineId, UnitName), (Grant, u64)>,
    pub(super) progress: BTreeMap<UnitName, Progress>,
    pub(super) history: BTreeMap<(UnitName, u64), Past>,
    pub(super) cluster: Option<String>,
    pub(super) leader: Option<MachineId>,
    /// Machines whose state is unknown, and why: presence or report cannot be read.
    pub(super) unreadable: BTreeMap<MachineId, String>,
    /// Values that cannot be read. They are left out above, and hide nothing else.
    pub(super) damaged: Vec<Problem>,
}

impl View {
    /// Reads these prefixes at one revision.
    pub(super) async fn read(store: &dyn Store, prefixes: &[&str]) -> Result<Self> {
        Self::listed(store, prefixes, None).await
    }

    /// The same, for who asks for one unit: what is reported of others is passed over.
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

    /// Reads the live machines and their metadata; what is remembered of machines, for one whose presence cannot be read.
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

    /// Every machine, live and offline, ordered by id.
    pub(super) fn all_machines(&self) -> BTreeMap<&MachineId, &ViewedMachine> {
        self.machines.iter().chain(&self.offline).collect()
    }

    /// The units as they are placed: by the revision that machines are on the way to.
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
    /// The unit whose reports are asked for, if it is one.
    only: Option<&'a UnitName>,
    damaged: Vec<Problem>,
}

impl<'a> Records<'a> {
    fn view(mut self) -> View {
        let units = self.all(keys::UNITS, keys::unit_of);
        let set: BTreeMap<MachineId, MetadataRecord> = self.machines(keys::METADATA);
        let mut machines = self.machines::<MachineRecord>(keys::MACHINES);
        let known = self.machines::<Known>(keys::KNOWN);
        // One whose presence cannot be read is here all the same, and said who it is when it came.
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
        // Read for its problem only.
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
