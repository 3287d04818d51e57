//! What a step of a rollout comes to: the keys that it writes, guarded so that no more than it can land.
//!
//! Every commit of a rollout writes the unit's `rollouts/` key, guarded by how it was. So of two that were decided from
//! the same knowledge only one lands: also if the first ended without an answer, and reaches the registry after it was
//! listed anew. And each is guarded by the unit's own key: whoever was told that a rollout is paused can count on it.

use fleet_core::keys;
use fleet_core::record::{EventKind, Progress};
use fleet_core::rollout::{Change, Step};
use fleet_core::unit::UnitName;

use super::decision::{BATCH, Decision, about};
use super::index::Index;
use super::machine::Written;
use super::unit::Unit;
use crate::history::retire;
use crate::store::{Guard, Write};

/// What to commit now; none if there is nothing to do. Of many grants the first, for whoever asks again. `history`:
/// the keys of the unit's older revisions, for a change.
pub(super) fn decide(
    index: &Index,
    name: &UnitName,
    step: Step,
    history: &[String],
    now: u64,
) -> Option<Decision> {
    let unit = index.units.get(name)?;
    let progress = index.progress.get(name);
    let mut decision = Decision::default();
    let begins = begins(unit, progress);
    if begins {
        let candidate = unit.record.newest().number;
        let reason = format!(
            "it is to take the place of revision {}",
            unit.record.stable.number
        );
        let event = about(name, candidate, EventKind::RolloutStarted, &reason, now);
        decision.events.push(event);
    }
    let changed = match &step.change {
        Some(change) => Some((change, change.make(&unit.record, now)?)),
        None => None,
    };
    let mut ends = false;
    if let Some((change, changed)) = changed {
        decision.put(keys::unit(name), &changed.record);
        if let Some(retired) = &changed.retired {
            decision.writes.extend(retire(name, retired, history));
            ends = true;
        }
        let candidate = unit.record.newest().number;
        let (kind, reason) = told(change);
        let mut event = about(name, candidate, kind, reason, now);
        if let Change::Pause(_, failed) = change {
            event.machines.clone_from(failed);
        }
        decision.events.push(event);
    }
    let batch = &step.grants[..step.grants.len().min(BATCH)];
    if let Some(first) = batch.first() {
        let mut event = about(
            name,
            first.grant.revision,
            EventKind::Granted,
            &step.why,
            now,
        );
        event.machines = batch.iter().map(|it| it.machine.clone()).collect();
        decision.events.push(event);
        for it in batch {
            decision.put(keys::grant(&it.machine, name), &it.grant);
        }
    }
    if decision.writes.is_empty() && step.progress.is_none() && !begins {
        return None;
    }
    decision.unless_modified(keys::unit(name), unit.modified);
    let key = keys::rollout(name);
    decision.guards.push(match progress {
        Some(progress) => Guard::Unmodified(key.clone(), progress.at),
        None => Guard::Absent(key.clone()),
    });
    if ends {
        decision.writes.push(Write::Delete(key));
    } else {
        let written = step.progress.or_else(|| current(unit, progress).cloned());
        decision.put(key, &written.unwrap_or_else(|| first_progress(unit, now)));
    }
    Some(decision)
}

/// Whether the unit has a candidate that no leader has seen before.
fn begins(unit: &Unit, progress: Option<&Written<Progress>>) -> bool {
    unit.record.candidate.is_some() && current(unit, progress).is_none()
}

/// What is written down about the newest revision.
fn current<'a>(unit: &Unit, progress: Option<&'a Written<Progress>>) -> Option<&'a Progress> {
    let progress = progress?.value.as_ref()?;
    let is_current =
        progress.unit == unit.created && progress.revision == unit.record.newest().number;
    is_current.then_some(progress)
}

fn first_progress(unit: &Unit, now: u64) -> Progress {
    Progress {
        unit: unit.created,
        revision: unit.record.newest().number,
        done: 0,
        at: now,
    }
}

fn told(change: &Change) -> (EventKind, &str) {
    match change {
        Change::Promote(outcome) => (EventKind::Promoted, &outcome.reason),
        Change::EndRollback(outcome) => (EventKind::RolledBack, &outcome.reason),
        Change::RollBack(reason) => (EventKind::RollingBack, reason),
        Change::Pause(reason, _) => (EventKind::Paused, reason),
    }
}
