//! Machines where a unit does not belong any more give it up, within the budget of the unit.
//!
//! An edit of a selector, metadata that was set, or a unit that came to exclude this one may take
//! it from every machine in one moment. So it stops on few machines at a time, and `MinReadySec`
//! passes before the next ones follow: if the others do not bear that, they spend the budget.

use super::clock::millis;
use super::standing::Standing;
use super::towards::proved;
use super::words::named_alone;
use super::{GrantTo, Step, Towards};
use crate::record::Progress;

/// Adds to a step that grants nothing which machines may give the unit up now.
pub(super) fn narrow(towards: &Towards<'_>, step: Step) -> Step {
    let situation = towards.situation;
    let still: Vec<&Standing<'_>> = towards.leavers.iter().filter(|it| !it.has_left()).collect();
    let waiting = || still.iter().filter(|it| it.waits_to_leave()).copied();
    let step = Step {
        proofs: towards.leavers.iter().filter_map(left).collect(),
        ..step
    };
    let Some(first) = waiting().next() else {
        return step;
    };
    let all = towards.machines.len() + still.len();
    let budget = situation.policy.budget(all);
    // A machine that waits for another unit to leave is not made worse: both could wait for ever.
    let costing = towards.those(|it| it.costs() && !it.is_new());
    let costing = [
        costing,
        still.iter().filter(|it| it.costs()).copied().collect(),
    ]
    .concat();
    let next = towards.watched_until().filter(|at| *at > situation.now);
    let room = match next {
        Some(_) => 0,
        None => budget.saturating_sub(costing.len()),
    };
    let (up, down): (Vec<_>, Vec<_>) = waiting().partition(|it| it.available);
    let grants = down.into_iter().chain(up.into_iter().take(room));
    let grants: Vec<GrantTo> = grants.filter_map(|it| towards.grant(it, true)).collect();
    let reason = first.leaves.map(ToString::to_string).unwrap_or_default();
    let spent = towards.spent_by(&costing, all, budget);
    let names = named_alone(&waiting().collect::<Vec<_>>());
    let waits = (waiting().count() > grants.len())
        .then(|| format!("to stop in turn on {names}: {reason}; {spent}"));
    Step {
        why: format!("stops on {names}: {reason}; {spent}"),
        progress: (!grants.is_empty()).then_some(Progress {
            unit: situation.created,
            revision: towards.revision,
            done: 0,
            at: situation.now,
        }),
        waits: match (step.waits, waits) {
            (Some(behind), Some(waits)) => Some(format!("{behind}; {waits}")),
            (behind, waits) => behind.or(waits),
        },
        wake_at: towards.wake_at(step.wake_at.into_iter().chain(next).min()),
        grants,
        ..step
    }
}

/// The grant of a machine that followed it: if it goes offline now, that is not because of it.
fn left(machine: &Standing<'_>) -> Option<GrantTo> {
    let grant = machine
        .valid_grant
        .filter(|grant| !grant.proved && machine.has_left() && grant.leaves)?;
    Some(proved(machine.id, grant))
}

impl Towards<'_> {
    /// Until when it shows whether the others do without the machine that was last let go.
    fn watched_until(&self) -> Option<u64> {
        let situation = self.situation;
        let last = situation.progress?;
        let is_of_now = (last.unit, last.revision) == (situation.created, self.revision);
        let until = situation
            .counted(last.at)
            .saturating_add(millis(situation.min_ready));
        is_of_now.then_some(until)
    }
}
