//! What no commit may do, whoever makes it: lose what was acknowledged, or decide something that
//! nobody is told.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::keys;
use fleet_core::record::{Event, EventKind, Grant, UnitRecord};
use fleet_core::rollout::Phase;
use fleet_core::unit::UnitName;
use fleetd::store::{Batch, Change, Entry};

use super::ledger::{Ledger, Unit, decode};

impl Ledger {
    /// What a commit would lose of what was acknowledged: a revision that is neither in the unit's
    /// record nor in its history any more, or, by a leader, what people asked for.
    pub(super) fn kept(&self, batch: &Batch) -> Vec<String> {
        let mut lost = Vec::new();
        let puts = batch.changes.iter().filter_map(|change| match change {
            Change::Put(key, entry) => Some((key, entry)),
            Change::Delete(_) => None,
        });
        let past: BTreeSet<(UnitName, u64)> = puts
            .clone()
            .filter_map(|(key, _)| keys::past_of(key))
            .collect();
        let by_leader = puts.clone().any(|(key, _)| key.starts_with(keys::EVENTS));
        for (key, entry) in puts {
            let Some((name, next)) = keys::unit_of(key).zip(decode::<UnitRecord>(entry)) else {
                continue;
            };
            let same = |before: &&Unit| before.created == entry.created;
            let Some(before) = self.units.get(&name).filter(same) else {
                continue;
            };
            let before = &before.record;
            let of = |record: &UnitRecord| -> Vec<u64> {
                let candidate = record.candidate.as_ref().map(|it| it.revision.number);
                candidate
                    .into_iter()
                    .chain([record.stable.number])
                    .collect()
            };
            let now = of(&next);
            for number in of(before) {
                if !now.contains(&number) && !past.contains(&(name.clone(), number)) {
                    lost.push(format!("{name}: revision {number} is lost"));
                }
            }
            if next.next_number() < before.next_number() {
                lost.push(format!("{name}: revisions are counted anew"));
            }
            let asked = |record: &UnitRecord| (record.target, record.owners.clone());
            if by_leader && asked(&next) != asked(before) {
                lost.push(format!("{name}: a leader changed what people asked for"));
            }
        }
        lost
    }

    /// Every decision of a leader comes with an event that says so.
    pub(super) fn check_told(&mut self, batch: &Batch) {
        let puts: BTreeMap<&str, &Entry> = batch
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(key, entry) => Some((key.as_str(), entry)),
                Change::Delete(_) => None,
            })
            .collect();
        let mut events = puts.iter().filter(|(key, _)| key.starts_with(keys::EVENTS));
        let events: Vec<Event> = events
            .by_ref()
            .filter_map(|(_, entry)| decode(entry))
            .collect();
        for (key, entry) in &puts {
            if let Some((id, name)) = keys::grant_of(key)
                && let Some(grant) = decode::<Grant>(entry)
                && !grant.proved
            {
                let is_told = events.iter().any(|event| {
                    event.kind == EventKind::Granted
                        && event.unit.as_ref() == Some(&name)
                        && event.revision == grant.revision
                        && event.machines.contains(&id)
                        && !event.reason.is_empty()
                });
                if !is_told {
                    self.wrong
                        .push(format!("{key} is granted, and no event says so"));
                }
            }
        }
        let by_leader = batch.changes.iter().any(|change| match change {
            Change::Put(key, _) | Change::Delete(key) => keys::rollout_of(key).is_some(),
        });
        let units = puts.keys().filter_map(|key| keys::unit_of(key));
        for name in units.filter(|_| by_leader) {
            let record = &self.units[&name].record;
            let expected = match &record.candidate {
                Some(it) if it.phase == Phase::Paused => EventKind::Paused,
                Some(_) => EventKind::RollingBack,
                None => match record.last.as_ref().map(|last| last.ended) {
                    Some(fleet_core::rollout::Ended::Done) => EventKind::Promoted,
                    _ => EventKind::RolledBack,
                },
            };
            if !events
                .iter()
                .any(|event| event.kind == expected && event.unit.as_ref() == Some(&name))
            {
                self.wrong
                    .push(format!("{name} is changed, and no event says {expected:?}"));
            }
        }
    }
}
