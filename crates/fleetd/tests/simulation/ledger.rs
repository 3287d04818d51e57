//! The registry, followed commit by commit: what the referee knows of grants, budgets and what
//! belongs where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata, Scheduling, SessionId, overlay};
use fleet_core::place::{Placeable, Verdict, place};
use fleet_core::record::{
    self, ClusterRecord, Grant, LeaderRecord, MachineRecord, MachineReport, MetadataRecord,
    Revision, UnitRecord, UnitReport,
};
use fleet_core::rollout::Phase;
use fleet_core::unit::{Parsed, TargetState, UnitName};
use fleetd::store::{Batch, Change, Entry, Snapshot};
use tokio::time::Instant;

/// A machine of the fleet and a unit.
pub(crate) type Seat = (MachineId, UnitName);

/// A unit's record, read.
pub(crate) struct Unit {
    pub(crate) record: UnitRecord,
    pub(crate) created: u64,
    stable: Parsed,
    candidate: Option<Parsed>,
}

/// One machine.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) presence: Option<MachineRecord>,
    /// What it said of itself when it was last here.
    known: Option<MachineRecord>,
    /// With the store revision that wrote it.
    pub(crate) report: Option<(MachineReport, u64)>,
    report_base: Option<Arc<[u8]>>,
    pub(crate) set: MetadataRecord,
    /// The units that it says are available, and since when it does.
    up: BTreeMap<UnitName, Instant>,
    /// The units that should run there.
    belongs: BTreeSet<UnitName>,
}

/// A grant, and the commit that wrote it.
#[derive(Clone)]
pub(crate) struct Granted {
    pub(crate) grant: Grant,
    pub(crate) revision: u64,
    pub(crate) at: Instant,
    /// Whether the machine had said for [`HEARD`] that the unit is available there.
    pub(crate) was_up: bool,
}

/// What was said for so long, everybody who is not cut off has heard.
pub(crate) const HEARD: Duration = Duration::from_secs(2);

/// When something was last so.
#[derive(Clone, Copy)]
pub(crate) struct Last {
    pub(crate) revision: u64,
    pub(crate) at: Instant,
}

/// A registry's id, and the revision that made it.
pub(crate) type Identity = (String, u64);

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) revision: u64,
    /// Where it began, and what is older.
    base: u64,
    cluster: Option<Identity>,
    /// The same, of an id that nobody can read since then, where nothing took its place.
    lost: Option<(Identity, Instant)>,
    /// While the registry is this one, what it says is the fleet's will: its first identity, or one
    /// that was accepted since.
    pub(crate) rightful: Option<Identity>,
    /// When it was accepted since it began, and the units that it had then: what is not in it
    /// is to go.
    pub(crate) accepted: Option<(Last, BTreeSet<UnitName>)>,
    /// Who held the claim from when on.
    leaders: Vec<(u64, Option<MachineId>)>,
    /// Units whose record nobody can read now; what was known of them stays.
    pub(crate) unreadable: BTreeSet<UnitName>,
    pub(crate) units: BTreeMap<UnitName, Unit>,
    pub(crate) machines: BTreeMap<MachineId, Machine>,
    /// Every grant there ever was.
    pub(crate) grants: BTreeMap<Seat, Vec<Granted>>,
    /// What the budget of a unit was from when on.
    budgets: BTreeMap<UnitName, Vec<(Instant, usize)>>,
    /// By version: the unit's creation, and the revisions with that content.
    pub(crate) versions: BTreeMap<u32, (u64, BTreeSet<u64>)>,
    /// The versions that were a stable revision's at some time.
    pub(crate) stable_ever: BTreeSet<u32>,
    /// The versions that were granted to a machine while the unit was one that was made before, and
    /// whether it has gone there since: once it may be late.
    pub(crate) granted_before: BTreeMap<(Seat, u32), bool>,
    /// When a unit last had no business on a machine.
    unwanted: BTreeMap<Seat, Last>,
    /// Commits that nobody may make.
    pub(crate) wrong: Vec<String>,
}

/// The version that a unit file is of.
pub(crate) fn version(content: &fleet_core::unit::Content) -> Option<u32> {
    let text = content.to_text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/bin/web "))?;
    line.trim().parse().ok()
}

/// An acceptance is of the id that its own commit may make, and a report over the base.
fn is_first(key: &str) -> bool {
    key == keys::CLUSTER || keys::report_base_of(key).is_some()
}

impl Ledger {
    /// Begins with what a store holds. `rightful`: what it has to be for that to count; none:
    /// nothing until it is accepted.
    pub(crate) fn of(snapshot: &Snapshot, rightful: Option<Identity>) -> Self {
        let mut ledger = Self {
            base: snapshot.revision,
            revision: snapshot.revision,
            ..Self::default()
        };
        let (first, others): (Vec<_>, Vec<_>) =
            snapshot.entries.iter().partition(|(key, _)| is_first(key));
        for (key, entry) in first.into_iter().chain(others) {
            ledger.put(key, Some(entry));
        }
        ledger.rightful = rightful;
        ledger.place_all(&BTreeSet::new());
        ledger
    }

    /// The same, of which the first identity is the rightful one.
    pub(crate) fn home(snapshot: &Snapshot) -> Self {
        let is = Self::of(snapshot, None).cluster;
        Self::of(snapshot, is)
    }

    /// Whether what it says is the fleet's will.
    pub(crate) fn is_open(&self) -> bool {
        // News of each key come apart: until a machine has heard that the id is unreadable, it
        // follows what people say.
        let lost = self.lost.iter();
        let lost = lost.filter(|(_, since)| since.elapsed() < HEARD);
        let mut is = self.cluster.iter().chain(lost.map(|(was, _)| was));
        is.any(|it| Some(it) == self.rightful.as_ref())
    }

    /// Who held the claim after that commit.
    pub(crate) fn leader_at(&self, revision: u64) -> Option<&MachineId> {
        let held = self.leaders.iter().rfind(|(since, _)| *since <= revision);
        held?.1.as_ref()
    }

    /// Takes the next commit. Answers the seats that a unit has no business on now, and machines
    /// that are gone.
    pub(crate) fn take(&mut self, batch: &Batch) -> BTreeSet<Seat> {
        self.revision = batch.revision;
        let mut placement = false;
        let kept = self.kept(batch);
        let (first, others): (Vec<_>, Vec<_>) = batch
            .changes
            .iter()
            .partition(|change| is_first(change.key()));
        for change in first.into_iter().chain(others) {
            placement |= match change {
                Change::Put(key, entry) => self.put(key, Some(entry)),
                Change::Delete(key) => self.put(key, None),
            };
        }
        if self.is_open() {
            self.wrong.extend(kept);
            self.check_told(batch);
        }
        if placement {
            // Also from machines that are cut off, which hear of it all the same or later.
            let left = batch.changes.iter().filter_map(|change| match change {
                Change::Delete(key) => keys::unit_of(key),
                Change::Put(..) => None,
            });
            self.place_all(&left.collect())
        } else {
            BTreeSet::new()
        }
    }

    /// Answers whether it may matter to what belongs where.
    fn put(&mut self, key: &str, entry: Option<&Entry>) -> bool {
        if let Some(name) = keys::unit_of(key) {
            self.put_unit(&name, entry);
            return true;
        }
        if key == keys::CLUSTER {
            let id = entry.and_then(decode::<ClusterRecord>);
            let is = id.zip(entry).map(|(it, entry)| (it.id, entry.created));
            let was = std::mem::replace(&mut self.cluster, is);
            self.lost = match (&self.cluster, entry) {
                (None, Some(entry)) => {
                    let lost = was.filter(|was| was.1 == entry.created);
                    lost.map(|was| (was, Instant::now())).or(self.lost.take())
                }
                _ => None,
            };
            return true;
        }
        if key == keys::ACCEPTANCE {
            let counts = entry.filter(|entry| entry.modified > self.base);
            let said = counts.and_then(decode::<record::AcceptanceRecord>);
            if said.is_some() && self.cluster.is_some() {
                self.rightful.clone_from(&self.cluster);
                let last = Last {
                    revision: self.revision,
                    at: Instant::now(),
                };
                self.accepted = Some((last, self.units.keys().cloned().collect()));
            }
            return true;
        }
        if key == keys::LEADER {
            let who = entry.and_then(decode::<LeaderRecord>).map(|it| it.machine);
            self.leaders.push((self.revision, who));
            return false;
        }
        if let Some((id, name)) = keys::grant_of(key) {
            if let Some(entry) = entry
                && let Some(grant) = decode::<Grant>(entry)
                && !grant.proved
            {
                let up = self.machines.get(&id).and_then(|it| it.up.get(&name));
                let granted = Granted {
                    was_up: up.is_some_and(|since| since.elapsed() >= HEARD),
                    grant,
                    revision: entry.modified,
                    at: Instant::now(),
                };
                self.grants.entry((id, name)).or_default().push(granted);
            }
            return false;
        }
        if let Some(id) = keys::report_base_of(key) {
            let machine = self.machines.entry(id).or_default();
            machine.report_base = entry.map(|entry| entry.value.clone());
            return false;
        }
        if let Some(id) = keys::machine_of(keys::REPORTS, key) {
            let machine = self.machines.entry(id).or_default();
            let base = machine.report_base.as_deref();
            let read = |entry: &Entry| record::decode_report(&entry.value, base).ok();
            machine.report = entry.and_then(|entry| Some((read(entry)?, entry.modified)));
            let units = machine.report.iter().flat_map(|(report, _)| &report.units);
            let up = units.filter(|(_, unit)| unit.available);
            let since = |name| machine.up.get(name).copied().unwrap_or_else(Instant::now);
            machine.up = up.map(|(name, _)| (name.clone(), since(name))).collect();
            return machine.set.scheduling == Scheduling::Cordoned;
        }
        if let Some(id) = keys::machine_of(keys::MACHINES, key) {
            let machine = self.machines.entry(id).or_default();
            machine.presence = entry.and_then(decode);
            machine.known = machine.presence.clone().or(machine.known.take());
            return true;
        }
        if let Some(id) = keys::machine_of(keys::METADATA, key) {
            let machine = self.machines.entry(id).or_default();
            // What is set and cannot be read changes nothing.
            let before = std::mem::take(&mut machine.set);
            machine.set = entry.map_or_else(Default::default, |it| decode(it).unwrap_or(before));
            return true;
        }
        false
    }

    fn put_unit(&mut self, name: &UnitName, entry: Option<&Entry>) {
        let Some(entry) = entry else {
            self.units.remove(name);
            self.unreadable.remove(name);
            return;
        };
        let Some(record) = decode::<UnitRecord>(entry) else {
            self.unreadable.insert(name.clone());
            return;
        };
        self.unreadable.remove(name);
        let parse = |it: &Revision| Parsed::parse(name.clone(), &it.content);
        let candidate = record.candidate.as_ref();
        let revisions = std::iter::once(&record.stable).chain(candidate.map(|it| &it.revision));
        for revision in revisions {
            let Some(version) = version(&revision.content) else {
                continue;
            };
            let known = self
                .versions
                .entry(version)
                .or_insert((entry.created, BTreeSet::new()));
            if known.0 != entry.created {
                // What was granted of the one before was granted all the same.
                let before = std::mem::replace(known, (entry.created, BTreeSet::new()));
                let of_it = |it: &Granted| {
                    it.grant.unit == before.0 && before.1.contains(&it.grant.revision)
                };
                let seats = self.grants.iter().filter(|(seat, _)| seat.1 == *name);
                let seats = seats.filter(|(_, all)| all.iter().any(of_it));
                self.granted_before
                    .extend(seats.map(|(seat, _)| ((seat.clone(), version), false)));
            }
            known.1.insert(revision.number);
        }
        self.stable_ever.extend(version(&record.stable.content));
        let unit = Unit {
            stable: parse(&record.stable),
            candidate: candidate.map(|it| parse(&it.revision)),
            record,
            created: entry.created,
        };
        self.units.insert(name.clone(), unit);
    }

    fn place_all(&mut self, left: &BTreeSet<UnitName>) -> BTreeSet<Seat> {
        let now = Instant::now();
        let mut gone = BTreeSet::new();
        // What a machine that is cut off would run if it came back.
        let mut kept = BTreeSet::new();
        let mut live: BTreeMap<&UnitName, usize> = BTreeMap::new();
        for (id, machine) in &mut self.machines {
            let was = std::mem::take(&mut machine.belongs);
            let is_here = machine.presence.is_some();
            if let Some(known) = &machine.known {
                let labels = overlay(&known.metadata, &machine.set.set);
                let has = |name: &UnitName| {
                    let report = machine.report.as_ref();
                    report.is_some_and(|(report, _)| report.units.contains_key(name))
                };
                for (name, unit) in &self.units {
                    let stays = match machine.set.scheduling {
                        Scheduling::Normal => true,
                        Scheduling::Cordoned => has(name),
                        Scheduling::Drained => false,
                    };
                    if stays && unit.wants(name, &labels) {
                        if is_here {
                            machine.belongs.insert(name.clone());
                        } else {
                            kept.insert((id.clone(), name.clone()));
                        }
                    }
                    if is_here && stays && unit.heads_for(name, &labels) {
                        *live.entry(name).or_default() += 1;
                    }
                }
            }
            let names = was.iter().chain(self.units.keys()).chain(left);
            for name in names.filter(|name| !machine.belongs.contains(*name)) {
                gone.insert((id.clone(), name.clone()));
            }
        }
        for (name, unit) in &self.units {
            let policy = unit
                .candidate
                .as_ref()
                .unwrap_or(&unit.stable)
                .options
                .policy;
            let budget = policy.budget(live.get(name).copied().unwrap_or_default());
            let budgets = self.budgets.entry(name.clone()).or_default();
            if budgets.last().map(|(_, last)| *last) != Some(budget) {
                budgets.push((now, budget));
            }
        }
        let last = Last {
            revision: self.revision,
            at: now,
        };
        if !self.is_open() {
            return gone;
        }
        for seat in &gone {
            // That a machine is cut off is no instruction.
            if !kept.contains(seat) {
                self.unwanted.insert(seat.clone(), last);
            }
        }
        gone
    }

    pub(crate) fn session(&self, id: &MachineId) -> Option<SessionId> {
        Some(self.machines.get(id)?.presence.as_ref()?.session)
    }

    pub(crate) fn report(&self, seat: &Seat) -> Option<&UnitReport> {
        self.machines
            .get(&seat.0)?
            .report
            .as_ref()?
            .0
            .units
            .get(&seat.1)
    }

    /// Whether the machine says that it cannot read what it was granted.
    pub(crate) fn says_grant_is_lost(&self, (id, name): &Seat) -> bool {
        let report = self.machines.get(id).and_then(|it| it.report.as_ref());
        report.is_some_and(|(report, _)| report.problems.contains_key(&keys::grant(id, name)))
    }

    /// Whether the unit should run on the machine, which is here.
    pub(crate) fn belongs(&self, seat: &Seat) -> bool {
        let machine = self.machines.get(&seat.0);
        machine.is_some_and(|machine| machine.belongs.contains(&seat.1))
    }

    /// When the unit last had no business there.
    pub(crate) fn unwanted(&self, seat: &Seat) -> Option<Last> {
        let accepted = self.accepted.iter();
        let without = accepted.filter(|(_, units)| !units.contains(&seat.1));
        let all = self.unwanted.get(seat).into_iter();
        let all = all.chain(without.map(|(last, _)| last));
        all.max_by_key(|last| last.revision).copied()
    }

    /// The largest budget since then.
    pub(crate) fn budget_since(&self, name: &UnitName, then: Instant) -> usize {
        let Some(budgets) = self.budgets.get(name) else {
            return 0;
        };
        let before = budgets.iter().rfind(|(at, _)| *at <= then);
        let after = budgets.iter().filter(|(at, _)| *at > then);
        before
            .into_iter()
            .chain(after)
            .map(|(_, budget)| *budget)
            .max()
            .unwrap_or_default()
    }

    /// The last grant of that version to the machine, while the unit was the one that it is of.
    pub(crate) fn granted(&self, seat: &Seat, version: u32) -> Option<&Granted> {
        let (created, numbers) = self.versions.get(&version)?;
        let fits =
            |it: &&Granted| it.grant.unit == *created && numbers.contains(&it.grant.revision);
        self.grants.get(seat)?.iter().rfind(fits)
    }
}

impl Unit {
    pub(crate) fn is_launched(&self) -> bool {
        self.record.target == TargetState::Launched
    }

    /// Whether it is to run on such a machine, whichever revision that has.
    fn wants(&self, name: &UnitName, labels: &Metadata) -> bool {
        let fits = |parsed: &Parsed| self.places(name, parsed, labels);
        self.is_launched() && fits(&self.stable) && self.candidate.as_ref().is_none_or(fits)
    }

    /// Whether the revision that machines are on the way to belongs on such a machine.
    pub(crate) fn heads_for(&self, name: &UnitName, labels: &Metadata) -> bool {
        let candidate = self.record.candidate.as_ref().zip(self.candidate.as_ref());
        let heading = match candidate {
            Some((record, parsed)) if record.phase != Phase::RollingBack => parsed,
            _ => &self.stable,
        };
        self.is_launched() && self.places(name, heading, labels)
    }

    fn places(&self, name: &UnitName, parsed: &Parsed, labels: &Metadata) -> bool {
        let unit = Placeable {
            name,
            created: self.created,
            target: self.record.target,
            options: &parsed.options,
        };
        place([unit], labels).get(name) == Some(&Verdict::Run)
    }
}

/// None where somebody wrote what nobody can read.
pub(super) fn decode<T: serde::de::DeserializeOwned>(entry: &Entry) -> Option<T> {
    record::decode(&entry.value).ok()
}
