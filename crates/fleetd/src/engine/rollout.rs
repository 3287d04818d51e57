//! What a step of a rollout comes to: the keys that it writes, guarded so that no more than it can
//! land.
//!
//! Every commit of a rollout writes the unit's `rollouts/` key, guarded by its former value. So
//! only one of two commits that were decided from the same knowledge lands. This holds even if the
//! first ended without an answer, and reaches the registry after the leader listed it again. The
//! unit's own key guards each commit too, so a pause that was acknowledged holds.

use fleet_core::keys;
use fleet_core::record::{self, EventKind, Progress, UnitRecord};
use fleet_core::rollout::{Step, Transition};
use fleet_core::unit::UnitName;

use super::commit::{BATCH, Decision};
use super::events::about;
use super::index::Index;
use super::machine::Written;
use super::unit::Unit;
use crate::registry::history::{History, retire};
use crate::store::{Guard, Write};

/// Returns what to commit now; `None` if there is nothing to do. Many grants take several calls.
/// `history`: the unit's older revisions, for a change; `before`: its record as it is in the
/// registry, for what this version does not know of it.
pub(super) fn decide(
    index: &Index,
    name: &UnitName,
    step: Step,
    history: &History,
    before: Option<&[u8]>,
    now: u64,
) -> Option<Decision> {
    let unit = index.units.get(name)?;
    let progress = index.progress.get(name);
    let current = current(unit, progress);
    let mut decision = Decision::default();
    if unit.record.candidate.is_some() && current.is_none() {
        let stable = unit.record.stable.number;
        let reason = format!("it is to take the place of revision {stable}");
        let number = unit.record.newest().number;
        let started = about(name, number, EventKind::RolloutStarted, &reason, now);
        decision.events.push(started);
    }
    let mut ends = false;
    if let Some(change) = &step.change {
        ends = add_change(&mut decision, name, unit, change, (history, before), now)?;
    }
    add_grants(&mut decision, name, &step, now);
    for it in step
        .proofs
        .iter()
        .take(BATCH - step.grants.len().min(BATCH))
    {
        decision.put(keys::grant(&it.machine, name), &it.grant);
    }
    if decision.events.is_empty() && decision.writes.is_empty() && step.progress.is_none() {
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
        let next = step.progress.or_else(|| current.cloned());
        decision.put(key, &next.unwrap_or_else(|| first_progress(unit, now)));
    }
    Some(decision)
}

/// Answers whether the rollout is over; none if there is none.
fn add_change(
    decision: &mut Decision,
    name: &UnitName,
    unit: &Unit,
    change: &Transition,
    (history, before): (&History, Option<&[u8]>),
    now: u64,
) -> Option<bool> {
    let changed = change.make(&unit.record, now)?;
    decision.writes.push(Write::Put {
        key: keys::unit(name),
        value: record::encode_over::<UnitRecord, _>(&changed.record, before),
        lease: None,
    });
    if let Some(retired) = &changed.retired {
        decision
            .writes
            .extend(retire(name, std::slice::from_ref(retired), history, before));
    }
    let (kind, reason) = told(change);
    let mut event = about(name, unit.record.newest().number, kind, reason, now);
    if let Transition::Pause(_, failed) = change {
        event.machines.clone_from(failed);
    }
    decision.events.push(event);
    Some(changed.retired.is_some())
}

fn add_grants(decision: &mut Decision, name: &UnitName, step: &Step, now: u64) {
    let batch = &step.grants[..step.grants.len().min(BATCH)];
    let Some(first) = batch.first() else {
        return;
    };
    for it in batch {
        decision.put(keys::grant(&it.machine, name), &it.grant);
    }
    let (revision, why) = (first.grant.revision, &step.why);
    let kind = match first.grant.leaves {
        true => EventKind::Narrowed,
        false => EventKind::Granted,
    };
    let mut event = about(name, revision, kind, why, now);
    event.machines = batch.iter().map(|it| it.machine.clone()).collect();
    decision.events.push(event);
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

fn told(change: &Transition) -> (EventKind, &str) {
    match change {
        Transition::Promote(outcome) => (EventKind::Promoted, &outcome.reason),
        Transition::EndRollback(outcome) => (EventKind::RolledBack, &outcome.reason),
        Transition::RollBack(reason) => (EventKind::RollingBack, reason),
        Transition::Pause(reason, _) => (EventKind::Paused, reason),
    }
}
