//! What units and machines that are gone leave in the registry, and nobody needs.

use std::collections::BTreeMap;

use fleet_core::keys;
use fleet_core::unit::UnitName;

use super::commit::{BATCH, Decision};
use super::index::Index;
use crate::store::Entry;

/// Grants and progress of units that are gone or were made anew, and grants of machines that nobody knows; and damaged
/// presences, which no lease ends, of machines whose report went with theirs.
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

/// Histories of units that are not there. `history`: all entries below [`keys::HISTORY`].
pub(super) fn of_histories(index: &Index, history: &BTreeMap<String, Entry>) -> Vec<Decision> {
    let left = history.iter().filter(|(key, _)| {
        let unit = key.strip_prefix(keys::HISTORY);
        let unit = unit.and_then(|rest| UnitName::parse(rest.split_once('/')?.0).ok());
        unit.is_some_and(|name| !index.exists(&name, None))
    });
    let mut left: Vec<(String, u64)> = left
        .map(|(key, entry)| (key.clone(), entry.modified))
        .collect();
    left.extend(old_tombstones(index, history));
    removal(left)
}

/// How many destroyed units are remembered. An old copy of a file is found by it, years later too.
const TOMBSTONES: usize = 1_000;

/// What is remembered of units that were destroyed before the last [`TOMBSTONES`].
fn old_tombstones(index: &Index, history: &BTreeMap<String, Entry>) -> Vec<(String, u64)> {
    let destroyed = history.iter().filter(|(key, _)| {
        let unit = keys::seen_of(key);
        unit.is_some_and(|name| !index.exists(&name, None))
    });
    let mut destroyed: Vec<(String, u64)> = destroyed
        .map(|(key, entry)| (key.clone(), entry.modified))
        .collect();
    destroyed.sort_by_key(|(_, modified)| std::cmp::Reverse(*modified));
    destroyed.split_off(destroyed.len().min(TOMBSTONES))
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
