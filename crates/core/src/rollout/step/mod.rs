//! Which machines may change their revision next, and when a rollout ends.
//!
//! **Invariant:** no more machines than the budget are unavailable because of what is decided here.
//! A machine counts as unavailable from its grant until it reports that it runs the revision
//! steadily, online or not: a machine that goes offline after its grant may have been cut off by
//! it. A machine that was offline before its grant costs nothing.
//!
//! **Invariant:** no revision is promoted before a machine has proved it, and none while the state
//! of a live machine is unknown.

mod clock;
mod narrow;
mod standing;
mod towards;
mod words;

use std::fmt;
use std::time::Duration;

use self::clock::{Clock, millis};
use self::narrow::narrow;
use self::standing::Standing;
use self::towards::Towards;
use self::words::named;
use super::Transition;
use crate::machine::{MachineId, SessionId};
use crate::place::Reason;
use crate::record::{Candidate, Grant, Outcome, Progress, UnitRecord, UnitReport};
use crate::rollout::{Ended, Phase};
use crate::unit::{Policy, TargetState};

/// A unit, and its state on the machines.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The unit.
    pub record: &'a UnitRecord,
    /// The store revision that made it.
    pub created: u64,
    /// Of the candidate, or of the stable revision if there is none.
    pub policy: Policy,
    /// How far its rollout had come.
    pub progress: Option<&'a Progress>,
    /// How long a machine must be ready before it counts as available. The others are watched for
    /// that time after a machine gave the unit up.
    pub min_ready: Duration,
    /// Every live or offline machine where the heading revision belongs, and those that run the
    /// unit although it does not belong there any more.
    pub machines: Vec<OnMachine<'a>>,
    /// The time, in milliseconds since 1970, by a clock that is not set while it leads.
    pub now: u64,
    /// Since when this leader knows that the rollout is in its phase, by the same clock. No
    /// deadline counts an earlier time: another clock, which may be hours behind, wrote it, or no
    /// engine led and the rollout could not make progress.
    pub since: u64,
}

impl Situation<'_> {
    /// When what is written to be of that time was, as far as a deadline is concerned.
    fn counted(&self, at: u64) -> u64 {
        at.min(self.now).max(self.since)
    }
}

/// Whether a machine is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In that session.
    Live(SessionId),
    /// Not since that time, in milliseconds since 1970; none while no leader has noted it.
    Offline(Option<u64>),
    /// Not yet: it may be back by that time, since it was here before this leader began.
    Awaited(u64),
}

impl Presence {
    /// Since when it is noted to be offline, if it is.
    pub fn offline_since(self) -> Option<u64> {
        match self {
            Self::Offline(since) => since,
            Self::Live(_) | Self::Awaited(_) => None,
        }
    }
}

/// A machine.
#[derive(Clone, Copy, Debug)]
pub struct OnMachine<'a> {
    /// Its id.
    pub id: &'a MachineId,
    /// Whether it is here.
    pub presence: Presence,
    /// Whether nothing new or updated may start there.
    pub cordoned: bool,
    /// What it may run of the unit, whatever session or unit that was for, and the store revision
    /// that wrote it.
    pub grant: Option<(&'a Grant, u64)>,
    /// What it says of the unit; none while it has put no file in place.
    pub report: Option<&'a UnitReport>,
    /// What it says is wrong with the unit, such as a name that is taken.
    pub problem: Option<&'a str>,
    /// Why the unit does not belong there any more, if it may still be there.
    pub leaves: Option<&'a Reason>,
    /// Why its state is unknown. It spends the budget, is given nothing, and nothing is promoted
    /// while it is so.
    pub unknown: Option<Unknown<'a>>,
}

/// Why nobody knows how a machine stands.
#[derive(Clone, Copy, Debug)]
pub enum Unknown<'a> {
    /// What it says cannot be read, because of this.
    Unreadable(&'a str),
    /// It has not said it, because of this.
    Untold(&'a str),
}

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "what it says cannot be read: {why}"),
            Self::Untold(why) => f.write_str(why),
        }
    }
}

/// What may happen next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Machines that may go on now.
    pub grants: Vec<GrantTo>,
    /// Why these may, for people.
    pub why: String,
    /// The grants of machines that have proved the candidate, to be marked so.
    pub proofs: Vec<GrantTo>,
    /// What becomes of the rollout. Never together with grants.
    pub change: Option<Transition>,
    /// The progress to write down; none leaves it as it is.
    pub progress: Option<Progress>,
    /// What the rollout waits for, for people; none if there is nothing left to do.
    pub waits: Option<String>,
    /// When to look again though nothing happened, in milliseconds since 1970.
    pub wake_at: Option<u64>,
}

/// A grant to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// To that machine.
    pub machine: MachineId,
    /// The grant.
    pub grant: Grant,
}

/// Decides the next step of one unit.
pub fn step(situation: &Situation<'_>) -> Step {
    let record = situation.record;
    let Some(candidate) = &record.candidate else {
        return match record.target {
            TargetState::Launched => {
                let towards = Towards::new(situation, record.stable.number);
                let step = catch_up(&towards);
                // One thing at a time: what is behind is brought up to date first.
                match step.grants.is_empty() {
                    true => narrow(&towards, step),
                    false => step,
                }
            }
            TargetState::Inactive | TargetState::Loaded => Step::default(),
        };
    };
    if record.target != TargetState::Launched {
        return settle(situation, candidate);
    }
    match candidate.phase {
        Phase::Rolling => roll(
            &Towards::new(situation, candidate.revision.number),
            candidate,
        ),
        Phase::RollingBack => roll_back(&Towards::new(situation, record.stable.number), candidate),
        Phase::Paused => Step {
            waits: Some(format!("paused: {}", candidate.reason)),
            ..Step::default()
        },
    }
}

/// Ends the rollout of a unit that is not launched any more: nothing runs that could be taken down.
fn settle(situation: &Situation<'_>, candidate: &Candidate) -> Step {
    let outcome = |ended, reason| Outcome {
        revision: candidate.revision.number,
        ended,
        reason,
        at: situation.now,
    };
    change(match candidate.phase {
        Phase::RollingBack => {
            Transition::EndRollback(outcome(Ended::RolledBack, candidate.reason.clone()))
        }
        Phase::Rolling | Phase::Paused => {
            let reason = format!(
                "the unit is {}: nothing runs that it could take down",
                situation.record.target
            );
            Transition::Promote(outcome(Ended::Done, reason))
        }
    })
}

/// Machines that missed an update take their turn.
fn catch_up(towards: &Towards<'_>) -> Step {
    let behind = |machine: &Standing<'_>| {
        let report = machine.report;
        report.is_some_and(|report| report.deferred && !report.leaving)
    };
    let grants = towards.grants(behind, usize::MAX);
    let left = towards
        .machines
        .iter()
        .filter(|machine| behind(machine) && machine.may_move())
        .count();
    if left == 0 {
        return Step::default();
    }
    Step {
        why: format!("it missed an update; {}", towards.spent()),
        waits: (left > grants.len()).then(|| {
            format!(
                "{left} machines missed revision {} and wait for their turn; {}",
                towards.revision,
                towards.spent()
            )
        }),
        grants,
        wake_at: towards.wake_at(None),
        ..Step::default()
    }
}

fn roll(towards: &Towards<'_>, candidate: &Candidate) -> Step {
    let pardoned = |machine: &Standing<'_>| candidate.failed_on.contains(machine.id);
    let failed = towards.those(|it| it.blames() && it.was_available && !pardoned(it));
    if !failed.is_empty() {
        return towards.fail(format!("it failed on {}", named(&failed)), &failed);
    }
    let lost = towards.those(|it| it.is_lost && !pardoned(it));
    if lost.len() > towards.budget {
        let reason = format!("{}; {}", towards.lost(&lost), towards.allowed());
        return towards.fail(reason, &lost);
    }
    let moving = towards.those(|it| it.may_move() && !it.is_done());
    let unknown = towards.those(|it| it.is_unknown());
    let proved = towards.those(|it| it.proves());
    let nothing_left = moving.is_empty() && unknown.is_empty() && lost.is_empty();
    // The cause first: the others only wait for it.
    let mut pending = [&unknown[..], &lost, &moving].concat();
    if nothing_left {
        if let Some(end) = end(towards, candidate, &proved) {
            return end;
        }
        pending = towards.machines.iter().chain(&towards.without).collect();
    }
    let count = towards.those(|it| it.is_done()).len();
    let clock = Clock::of(towards, count);
    let is_up = clock.is_up(towards.situation.now) && !towards.runs_to_its_end();
    if is_up && !proved.is_empty() && moving.is_empty() && unknown.is_empty() {
        return promote(towards, candidate, &proved);
    }
    if is_up {
        return towards.overdue(&proved, &moving, &unknown, &lost, &pending);
    }
    // No more machines try an unproven revision at once than the budget, even where the unit is
    // down anyway.
    let trying = towards
        .those(|it| (it.on || it.moving) && !it.is_done())
        .len()
        + lost.len();
    Step {
        why: towards.spent(),
        grants: towards.grants(|_| true, towards.budget.saturating_sub(trying)),
        proofs: towards.proofs(),
        change: None,
        waits: Some(format!(
            "{count} of {} machines are done; waiting for {}; {}",
            towards.machines.len(),
            named(&pending),
            towards.spent()
        )),
        progress: clock.write,
        // The end of a oneshot's run is news by itself.
        wake_at: towards.wake_at(clock.wake_at.filter(|at| *at > towards.situation.now)),
    }
}

/// Every machine has the candidate, and its state there is known. None while no machine has proved
/// it.
fn end(towards: &Towards<'_>, candidate: &Candidate, proved: &[&Standing<'_>]) -> Option<Step> {
    if !proved.is_empty() || towards.machines.is_empty() && towards.without.is_empty() {
        return Some(promote(towards, candidate, proved));
    }
    let failed = towards.those(|it| it.failure().is_some() && it.may_move());
    if failed.iter().any(|it| !candidate.failed_on.contains(it.id)) {
        let reason = format!("no machine has it up; it failed on {}", named(&failed));
        return Some(towards.fail(reason, &failed));
    }
    let all_cordoned = towards.without.is_empty() && towards.machines.iter().all(|it| it.cordoned);
    all_cordoned.then(|| Step {
        waits: Some(format!(
            "no machine has proved revision {}: every machine where it belongs is cordoned",
            towards.revision
        )),
        ..Step::default()
    })
}

fn promote(towards: &Towards<'_>, candidate: &Candidate, proved: &[&Standing<'_>]) -> Step {
    let all = towards.machines.len() + towards.without.len();
    let without: Vec<&Standing<'_>> = towards
        .machines
        .iter()
        .filter(|it| !it.proves())
        .chain(&towards.without)
        .collect();
    let available = proved.len();
    let reason = match (all, &without[..]) {
        (0, _) => "it belongs on no live machine: no machine has proved it".to_owned(),
        (_, []) => format!("available on {available} of {all} machines"),
        (_, without) => format!(
            "available on {available} of {all} machines; not on {}",
            named(without)
        ),
    };
    change(Transition::Promote(Outcome {
        revision: candidate.revision.number,
        ended: Ended::Done,
        reason,
        at: towards.situation.now,
    }))
}

fn roll_back(towards: &Towards<'_>, candidate: &Candidate) -> Step {
    // A machine without the unit takes the stable revision by itself, unless it was granted the
    // candidate.
    let has = |machine: &Standing<'_>| machine.report.is_some() || machine.granted.is_some();
    let grants = towards.grants(has, usize::MAX);
    let away = towards.those(|it| has(it) && it.may_move() && !it.is_there);
    let unsettled = towards.those(|it| it.may_move() && !it.available && it.failure().is_none());
    let deadline = towards
        .situation
        .since
        .saturating_add(millis(towards.situation.policy.progress_deadline));
    if away.is_empty() && (unsettled.is_empty() || towards.situation.now >= deadline) {
        return change(Transition::EndRollback(Outcome {
            revision: candidate.revision.number,
            ended: Ended::RolledBack,
            reason: candidate.reason.clone(),
            at: towards.situation.now,
        }));
    }
    let waits = if away.is_empty() { &unsettled } else { &away };
    Step {
        why: format!("back to the stable revision; {}", towards.spent()),
        grants,
        waits: Some(format!(
            "rolling back; waiting for {}; {}",
            named(waits),
            towards.spent()
        )),
        wake_at: towards.wake_at(away.is_empty().then_some(deadline)),
        ..Step::default()
    }
}

fn change(change: Transition) -> Step {
    Step {
        change: Some(change),
        ..Step::default()
    }
}

fn ids(machines: &[&Standing<'_>]) -> Vec<MachineId> {
    machines.iter().map(|it| it.id.clone()).collect()
}

#[cfg(test)]
mod tests;
