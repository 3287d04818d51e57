//! What the registry says, as far as it concerns one machine.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata, Scheduling, SessionId, overlay};
use fleet_core::place::{Placeable, Verdict, place, restrict};
use fleet_core::plan::Desired;
use fleet_core::record::{self, DestroyedRecord, Grant, MetadataRecord, UnitRecord};
use fleet_core::trust::Identity;
use fleet_core::unit::{Content, UnitName};

use super::unit::{Chosen, Indexed};
use crate::mirror::Update;
use crate::store::{Batch, Change, Entry, Snapshot};

/// The prefixes that concern the machine.
pub(super) fn prefixes(me: &MachineId) -> Vec<String> {
    vec![
        keys::CLUSTER.to_owned(),
        keys::ACCEPTANCE.to_owned(),
        keys::UNITS.to_owned(),
        keys::metadata(me),
        keys::grants_of(me),
        // Not for the index: another machine may have the same id.
        keys::machine(me),
    ]
}

/// Whether this may be about who is in the registry under the machine's id.
pub(super) fn is_about_place(me: &MachineId, event: &Update) -> bool {
    let place = keys::machine(me);
    match event {
        Update::Reset(_) => true,
        Update::Changed(batch) => batch.changes.iter().any(|change| {
            let (Change::Put(key, _) | Change::Delete(key)) = change;
            key.starts_with(&place)
        }),
        Update::Away(_) => false,
    }
}

/// What takes something away from this machine may be part of a registry's end. Each prefix has a
/// watch of its own, so that the going of its id may be heard later: it is asked for, unless
/// somebody destroyed just that.
pub(super) fn beside(batch: &Batch) -> Option<&'static str> {
    let takes = batch.changes.iter().any(|change| match change {
        Change::Delete(key) => match keys::unit_of(key) {
            Some(name) => destroyed(batch).is_none_or(|destroyed| destroyed != name),
            None => keys::machine_of(keys::METADATA, key).is_some(),
        },
        Change::Put(..) => false,
    });
    takes.then_some(keys::CLUSTER)
}

/// The unit that the commit destroyed because somebody said so.
fn destroyed(batch: &Batch) -> Option<UnitName> {
    let said = batch.changes.iter().find_map(|change| match change {
        Change::Put(key, entry) if key == keys::DESTROYED => Some(entry),
        _ => None,
    });
    record::decode::<DestroyedRecord>(&said?.value)
        .ok()
        .map(|record| record.unit)
}

/// The index. Values that cannot be read leave that one unit as it is and are told as problems.
#[derive(Debug)]
pub(super) struct Index {
    me: MachineId,
    own: Metadata,
    units: BTreeMap<UnitName, Indexed>,
    set: MetadataRecord,
    /// What the leader lets this machine run, for whatever session, and the store revision that
    /// wrote it.
    grants: BTreeMap<UnitName, (Grant, u64)>,
    /// What instructs this machine, and the store revisions that wrote it.
    written: BTreeMap<String, u64>,
    /// The units of which something else may be wanted since [`Index::update`]; none: any of them.
    touched: Option<BTreeSet<UnitName>>,
    /// The session that grants were asked for then.
    session: Option<SessionId>,
    /// Which registry it is, and the store revision that all of it stands at.
    pub(super) identity: Identity,
    /// What could not be read, by key.
    pub(super) problems: BTreeMap<String, String>,
}

impl Index {
    /// An index of nothing, for a machine with that metadata of its own.
    pub(super) fn new(me: MachineId, own: Metadata) -> Self {
        Self {
            me,
            own,
            units: BTreeMap::new(),
            set: MetadataRecord::default(),
            grants: BTreeMap::new(),
            written: BTreeMap::new(),
            touched: None,
            session: None,
            identity: Identity::default(),
            problems: BTreeMap::new(),
        }
    }

    /// The newest content of every unit.
    pub(super) fn newest(&self) -> BTreeMap<UnitName, Content> {
        let units = self.units.iter();
        units
            .map(|(name, unit)| (name.clone(), unit.newest().clone()))
            .collect()
    }

    /// Whether what is set for the machine cannot be read.
    pub(super) fn metadata_is_damaged(&self) -> bool {
        self.problems.contains_key(&keys::metadata(&self.me))
    }

    /// Something else may be wanted of any unit.
    pub(super) fn touch_all(&mut self) {
        self.touched = None;
    }

    /// Takes other metadata of this machine's own. Returns whether it differs.
    pub(super) fn set_own(&mut self, own: Metadata) -> bool {
        let differs = self.own != own;
        if differs {
            self.own = own;
            self.touch_all();
        }
        differs
    }

    fn touch(&mut self, name: &UnitName) {
        if let Some(touched) = &mut self.touched {
            touched.insert(name.clone());
        }
    }

    /// Takes what was heard of the registry.
    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Reset(snapshot) => self.reset(snapshot),
            Update::Changed(batch) => self.apply(batch),
            Update::Away(_) => {}
        }
    }

    /// Takes all there is.
    fn reset(&mut self, snapshot: Snapshot) {
        self.touch_all();
        self.units
            .retain(|name, _| snapshot.entries.contains_key(&keys::unit(name)));
        self.set = MetadataRecord::default();
        self.grants.clear();
        self.identity = Identity::default();
        self.problems.clear();
        self.written.clear();
        for (key, entry) in snapshot.entries {
            self.put(&key, &entry);
        }
        self.identity.revision = snapshot.revision;
        self.note_instructed();
    }

    /// Takes one commit.
    fn apply(&mut self, batch: Batch) {
        for change in batch.changes {
            match change {
                Change::Put(key, entry) => self.put(&key, &entry),
                Change::Delete(key) => self.delete(&key),
            }
        }
        // Commits may come out of order between prefixes; a registry that went back shows when it
        // is listed.
        self.identity.revision = self.identity.revision.max(batch.revision);
        self.note_instructed();
    }

    fn note_instructed(&mut self) {
        self.identity.instructed = Some(self.written.values().max().copied().unwrap_or_default());
    }

    fn put(&mut self, key: &str, entry: &Entry) {
        if keys::instructs(key, &self.me) {
            self.written.insert(key.to_owned(), entry.modified);
        }
        let told = (&*entry.value, entry.created, entry.modified);
        let read = match self.identity.take(key, Some(told)) {
            Some(read) => read,
            None if key == keys::metadata(&self.me) => {
                self.touch_all();
                record::decode(&entry.value).map(|record| self.set = record)
            }
            None => match (keys::unit_of(key), self.grant_of(key)) {
                (Some(name), _) => {
                    self.touch(&name);
                    record::decode(&entry.value)
                        .map(|record| self.put_unit(name, record, entry.created))
                }
                // One that cannot be read lets the unit go nowhere.
                (None, Some(name)) => {
                    self.touch(&name);
                    let before = self.grants.remove(&name);
                    record::decode(&entry.value).map(|grant: Grant| {
                        // The leader marks grants for itself: to confirm that again would be a
                        // report for nothing.
                        let same = before.filter(|(before, _)| before.permits_like(&grant));
                        let at = same.map_or(entry.modified, |(_, at)| at);
                        self.grants.insert(name, (grant, at));
                    })
                }
                // A whole-key prefix matches longer keys too; those are none of ours.
                (None, None) => return,
            },
        };
        match read {
            Ok(()) => self.problems.remove(key),
            Err(error) => self.problems.insert(key.to_owned(), error.to_string()),
        };
    }

    fn put_unit(&mut self, name: UnitName, record: UnitRecord, created: u64) {
        let known = self.remove_unit(&name);
        let indexed = Indexed::new(&name, record, created, known);
        self.units.insert(name, indexed);
    }

    fn remove_unit(&mut self, name: &UnitName) -> Option<Indexed> {
        let known = self.units.remove(name);
        if known.as_ref().is_some_and(Indexed::excludes) {
            // What it kept away may start.
            self.touch_all();
        }
        known
    }

    /// The unit that a key of a grant to this machine names.
    fn grant_of(&self, key: &str) -> Option<UnitName> {
        let (machine, unit) = keys::grant_of(key)?;
        (machine == self.me).then_some(unit)
    }

    fn delete(&mut self, key: &str) {
        self.problems.remove(key);
        self.written.remove(key);
        if self.identity.take(key, None).is_some() {
            // It tells which registry it is, and nothing else.
        } else if key == keys::metadata(&self.me) {
            self.touch_all();
            self.set = MetadataRecord::default();
        } else if let Some(name) = keys::unit_of(key) {
            self.touch(&name);
            self.remove_unit(&name);
        } else if let Some(name) = self.grant_of(key) {
            self.touch(&name);
            self.grants.remove(&name);
        }
    }

    /// What may start on this machine.
    pub(super) fn scheduling(&self) -> Scheduling {
        self.set.scheduling
    }

    /// Makes that what the machine should have. Answers the units of which something else is
    /// wanted. `session`: its present one.
    ///
    /// A change costs as much as the units that it is about, unless one anywhere keeps others away.
    pub(super) fn update(
        &mut self,
        desired: &mut BTreeMap<UnitName, Desired>,
        session: Option<SessionId>,
    ) -> BTreeSet<UnitName> {
        let all = cfg!(debug_assertions).then(|| self.desired(desired, session));
        let is_same = std::mem::replace(&mut self.session, session) == session;
        let touched = self.touched.replace(BTreeSet::new());
        let apart = is_same && !self.units.values().any(Indexed::excludes);
        let names = touched
            .filter(|_| apart)
            .unwrap_or_else(|| self.names(desired));
        let mut now = self.among(&names, desired, session);
        let mut changed = BTreeSet::new();
        for name in names {
            match now.remove(&name) {
                Some(want) if desired.get(&name) == Some(&want) => continue,
                Some(want) => drop(desired.insert(name.clone(), want)),
                None if desired.remove(&name).is_none() => continue,
                None => {}
            }
            changed.insert(name);
        }
        debug_assert_eq!(Some(&*desired), all.as_ref());
        changed
    }

    /// What the machine should have. `present` is what it should have had so far: a unit whose
    /// record cannot be read stays as it was, and one that would be restarted waits for a grant.
    /// `session`: its present one.
    pub(super) fn desired(
        &self,
        present: &BTreeMap<UnitName, Desired>,
        session: Option<SessionId>,
    ) -> BTreeMap<UnitName, Desired> {
        self.among(&self.names(present), present, session)
    }

    /// Every unit that there is, or was here so far.
    fn names(&self, present: &BTreeMap<UnitName, Desired>) -> BTreeSet<UnitName> {
        self.units.keys().chain(present.keys()).cloned().collect()
    }

    /// The same, of these units, where no other one matters to them.
    fn among(
        &self,
        names: &BTreeSet<UnitName>,
        present: &BTreeMap<UnitName, Desired>,
        session: Option<SessionId>,
    ) -> BTreeMap<UnitName, Desired> {
        let metadata = overlay(&self.own, &self.set.set);
        let units = names
            .iter()
            .filter_map(|name| self.units.get_key_value(name));
        let chosen: BTreeMap<&UnitName, Chosen<'_>> = units
            .map(|(name, indexed)| {
                let grant = self.grants.get(name);
                (name, indexed.choose(grant, session, present.get(name)))
            })
            .collect();
        let all: Vec<Placeable<'_>> = chosen.iter().map(|(name, it)| it.placeable(name)).collect();
        // Before they are placed: a unit that may not start here keeps no other away.
        let may_run = chosen.iter().zip(&all).filter(|((_, it), unit)| {
            let scheduling = unit.options.scheduling_on(self.set.scheduling);
            restrict(Verdict::Run, scheduling, it.is_here()) == Verdict::Run
        });
        let verdicts = place(may_run.map(|(_, unit)| *unit), &metadata);
        let excluding = all.iter().filter(|unit| !unit.options.conflicts.is_empty());
        let excluding: Vec<Placeable<'_>> = excluding.copied().collect();
        let mut desired: BTreeMap<UnitName, Desired> = chosen
            .iter()
            .filter_map(|(name, chosen)| match verdicts.get(*name)? {
                Verdict::Run => Some((name, chosen, false)),
                Verdict::Not(reason) => chosen.stays(reason).then_some((name, chosen, true)),
            })
            .map(|(name, chosen, leaving)| {
                // As in `place`: a unit that excludes none is held against those that do.
                let rivals = if chosen.excludes_none() {
                    &excluding
                } else {
                    &all
                };
                (
                    (*name).clone(),
                    chosen.desired(name, rivals, self.set.scheduling, leaving),
                )
            })
            .collect();
        let unreadable = self.problems.keys().filter_map(|key| keys::unit_of(key));
        for name in unreadable.filter(|name| names.contains(name)) {
            if let Some(kept) = present.get(&name).filter(|_| self.keeps_unread()) {
                desired.insert(name, kept.clone());
            }
        }
        desired
    }

    /// Units of which nobody knows what is wanted here: their records cannot be read, and it is not
    /// known what was wanted before.
    pub(super) fn unknown(&self, desired: &BTreeMap<UnitName, Desired>) -> BTreeSet<UnitName> {
        let unreadable = self.problems.keys().filter_map(|key| keys::unit_of(key));
        unreadable
            .filter(|name| !desired.contains_key(name) && self.keeps_unread())
            .collect()
    }

    /// Returns whether a unit that is here stays while its record cannot be read.
    fn keeps_unread(&self) -> bool {
        restrict(Verdict::Run, self.set.scheduling, true) == Verdict::Run
    }
}
