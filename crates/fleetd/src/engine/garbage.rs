//! What units and machines that are gone leave in the registry, and nobody needs.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::Owner;
use fleet_core::unit::UnitName;

use super::commit::{BATCH, Decision};
use super::index::Index;
use crate::store::Guard;

/// Returns decisions that remove grants and progress of units that were destroyed or re-created,
/// grants of unknown machines, and damaged presences, which no lease ends, of machines without a
/// report.
pub(super) fn of_rollouts(index: &Index) -> Vec<Decision> {
    let mut keys: Vec<(String, u64)> = Vec::new();
    for (id, machine) in &index.machines {
        if let (Some(presence), None) = (&machine.presence, &machine.report)
            && presence.value.is_none()
            && !presence.is_newer
        {
            keys.push((keys::machine(id), presence.at));
        }
        let is_known = machine.presence.is_some() || machine.known.is_some();
        for (name, grant) in &machine.grants {
            let unit = grant.value.as_ref().map(|grant| grant.unit);
            if !is_known || !index.exists(name, unit) {
                keys.push((keys::grant(id, name), grant.at));
            }
        }
    }
    for (name, progress) in &index.progress {
        let unit = progress.value.as_ref().map(|progress| progress.unit);
        if !index.exists(name, unit) {
            keys.push((keys::rollout(name), progress.at));
        }
    }
    removal(keys)
}

/// Histories of units that are not there. `history`: all keys below [`keys::HISTORY`], with the
/// store revisions that wrote them.
pub(super) fn of_histories(index: &Index, history: &BTreeMap<String, u64>) -> Vec<Decision> {
    let left = history.iter().filter(|(key, _)| {
        let unit = key.strip_prefix(keys::HISTORY);
        let unit = unit.and_then(|rest| UnitName::parse(rest.split_once('/')?.0).ok());
        unit.is_some_and(|name| !index.exists(&name, None))
    });
    let mut left: Vec<(String, u64)> = left.map(|(key, at)| (key.clone(), *at)).collect();
    left.extend(old_tombstones(index, history));
    removal(left)
}

/// How many destroyed units are remembered. An old copy of a file is found by it, years later too.
const TOMBSTONES: usize = 1_000;

/// What is remembered of units that were destroyed before the last [`TOMBSTONES`].
fn old_tombstones(index: &Index, history: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let destroyed = history.iter().filter(|(key, _)| {
        let unit = keys::seen_of(key);
        unit.is_some_and(|name| !index.exists(&name, None))
    });
    let mut destroyed: Vec<(String, u64)> = destroyed.map(|(key, at)| (key.clone(), *at)).collect();
    destroyed.sort_by_key(|(_, modified)| std::cmp::Reverse(*modified));
    destroyed.split_off(destroyed.len().min(TOMBSTONES))
}

/// Grants of units that are not rolled out, which are of no use any more. One that may have cut a
/// machine off stays: the machine spends the budget.
pub(super) fn of_settled(index: &Index, units: &BTreeSet<UnitName>) -> Vec<Decision> {
    let mut keys = Vec::new();
    for (id, machine) in &index.machines {
        for (name, written) in &machine.grants {
            let Some(grant) = written.value.as_ref().filter(|_| units.contains(name)) else {
                continue;
            };
            let Some(unit) = index.units.get(name) else {
                continue;
            };
            let is_of_now =
                grant.unit == unit.created && grant.revision == unit.record.stable.number;
            // One that went offline with it may have been cut off by it, and is counted as such.
            let is_waited_for = machine.presence.as_ref().is_none_or(|presence| {
                let report = machine.report.as_ref().and_then(|report| report.value());
                let report = report.and_then(|report| report.units.get(name));
                let session = presence.value.as_ref().map(|it| it.session);
                let is_open = match report {
                    Some(report) => report.grant < written.at || !report.available,
                    // It was let go, and is gone.
                    None => !grant.leaves,
                };
                session.is_none_or(|it| it == grant.session) && is_open
            });
            // An agent confirms the grant, not the leader's mark on it.
            if !is_of_now || grant.proved || !is_waited_for {
                keys.push((keys::grant(id, name), written.at));
            }
        }
    }
    removal(keys)
}

/// Owners of units that are not there, which an older version left, and those among `forgotten`.
/// `owners`: all keys below [`keys::OWNERS`], with the store revisions that wrote them.
pub(super) fn of_owners(
    index: &Index,
    forgotten: &BTreeSet<MachineId>,
    owners: &BTreeMap<String, u64>,
) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = Vec::new();
    let mut left = Vec::new();
    for (key, at) in owners {
        let Some((unit, machine)) = keys::owner_of(key) else {
            continue;
        };
        if forgotten.contains(&machine) {
            left.push((key.clone(), *at));
        } else if !index.exists(&unit, None) {
            let mut decision = Decision::default();
            decision.delete(key.clone(), *at);
            // It may have been made since the leader listed the units, with this owner.
            decision.guards.push(Guard::Absent(keys::unit(&unit)));
            match decisions.last_mut() {
                Some(last) if last.guards.len() + 2 <= BATCH => last.join(decision),
                _ => decisions.push(decision),
            }
        }
    }
    decisions.extend(removal(left));
    // An older version kept directories in the record.
    for (name, unit) in &index.units {
        let mut record = unit.record.clone();
        record.owners.retain(
            |owner| !matches!(owner, Owner::Directory(machine) if forgotten.contains(machine)),
        );
        if record != unit.record {
            let mut decision = Decision::default();
            decision.unless_modified(keys::unit(name), unit.modified);
            decision.put(keys::unit(name), &record);
            decisions.push(decision);
        }
    }
    decisions
}

/// Each guarded by what was read: the unit may be made anew meanwhile.
fn removal(keys: Vec<(String, u64)>) -> Vec<Decision> {
    keys.chunks(BATCH)
        .map(|batch| {
            let mut decision = Decision::default();
            for (key, at) in batch {
                decision.delete(key.clone(), *at);
            }
            decision
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use fleet_core::machine::Metadata;
    use fleet_core::record::{self, Grant, MachineRecord};

    use super::*;
    use crate::engine::fixture::{everywhere, machine, name, seen};

    #[test]
    fn grant_stays_until_followed_or_its_machine_may_be_cut_off() {
        let mut index = Index::default();
        let (unit, id) = (name(), machine());
        let record = record::encode(&everywhere());
        seen(&mut index, 1, &keys::unit(&unit), Some(record));
        let presence = MachineRecord {
            primary_ip: String::new(),
            metadata: Metadata::new(),
            version: String::new(),
            session: 7,
        };
        let presence = record::encode(&presence);
        seen(&mut index, 2, &keys::machine(&id), Some(presence));
        let grant = |proved| Grant {
            unit: 1,
            revision: 1,
            session: 7,
            was_available: true,
            proved,
            leaves: false,
        };
        let key = keys::grant(&id, &unit);
        let units = BTreeSet::from([unit]);
        let goes = |index: &Index| !of_settled(index, &units).is_empty();
        seen(&mut index, 3, &key, Some(record::encode(&grant(false))));
        assert!(
            !goes(&index),
            "the machine has not said that it followed it"
        );
        seen(&mut index, 4, &keys::machine(&id), None);
        assert!(!goes(&index), "it may have cut the machine off");
        seen(&mut index, 5, &key, Some(record::encode(&grant(true))));
        assert!(goes(&index), "the leader saw that it was followed");
    }
}
