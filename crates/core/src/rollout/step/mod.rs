//! Which machines may change their revision next, and when a rollout ends.
//!
//! **Invariant:** of the live machines where the unit belongs, no more than the budget are
//! unavailable because of what is decided here. A machine counts as unavailable from the moment it
//! is granted another revision until it reports that it runs it, steadily. So the next decision, by
//! any leader, finds the budget spent.

mod clock;

use std::fmt;

use self::clock::{Clock, millis};
use super::Transition;
use crate::machine::{MachineId, SessionId};
use crate::record::{Candidate, Grant, Outcome, Progress, UnitRecord, UnitReport};
use crate::rollout::{Ended, Phase};
use crate::unit::{OnFailure, Policy, TargetState};

/// A unit, and its state on the live machines.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The unit.
    pub record: &'a UnitRecord,
    /// The store revision that made it.
    pub created: u64,
    /// The policy of the candidate, or of the stable revision without one.
    pub policy: Policy,
    /// How far its rollout had come.
    pub progress: Option<&'a Progress>,
    /// Every live machine where the revision belongs that machines are on the way to.
    pub machines: Vec<OnMachine<'a>>,
    /// The time, in milliseconds since 1970, by a clock that is not set while it leads.
    pub now: u64,
    /// Since when this leader has known the rollout to be in its phase, by the same clock. No
    /// deadline counts an older time. It is from another clock, which may be hours behind, or from
    /// a time without a leader.
    pub since: u64,
}

impl Situation<'_> {
    /// When what is written to be of that time was, as far as a deadline is concerned.
    fn counted(&self, at: u64) -> u64 {
        at.min(self.now).max(self.since)
    }
}

/// A live machine.
#[derive(Clone, Copy, Debug)]
pub struct OnMachine<'a> {
    /// Its id.
    pub id: &'a MachineId,
    /// Its present session.
    pub session: SessionId,
    /// Whether nothing new or updated may start there.
    pub cordoned: bool,
    /// Its grant, for whichever session or unit, and the store revision that wrote it.
    pub grant: Option<(&'a Grant, u64)>,
    /// Its report about the unit; `None` while it has put no file in place.
    pub report: Option<&'a UnitReport>,
    /// The problem that it reports with the unit, such as a name that is taken.
    pub problem: Option<&'a str>,
    /// The reason why its state is unknown. It spends the budget and is granted nothing. A rollout
    /// ends without it, as without an offline machine.
    pub unknown: Option<Unknown<'a>>,
}

/// The reason why the state of a machine is unknown.
#[derive(Clone, Copy, Debug)]
pub enum Unknown<'a> {
    /// Its report cannot be read, for this reason.
    Unreadable(&'a str),
    /// It has not reported yet, for this reason.
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

/// The next step of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Machines that may go on now.
    pub grants: Vec<GrantTo>,
    /// Why these may, for people.
    pub why: String,
    /// The end or change of phase of the rollout. Never together with grants.
    pub change: Option<Transition>,
    /// The progress to write down; none leaves it as it is.
    pub progress: Option<Progress>,
    /// The reason why the rollout waits, for people; `None` if nothing is left to do.
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

/// Machines that a text names before it says how many more there are.
const NAMED: usize = 3;

/// Decides the next step of one unit.
pub fn step(situation: &Situation<'_>) -> Step {
    let record = situation.record;
    if record.target != TargetState::Launched {
        return match record.candidate {
            Some(_) => waiting(format!("its target state is {}", record.target)),
            None => Step::default(),
        };
    }
    match &record.candidate {
        None => catch_up(&Towards::new(situation, record.stable.number)),
        Some(candidate) => match candidate.phase {
            Phase::Rolling => roll(
                &Towards::new(situation, candidate.revision.number),
                candidate,
            ),
            Phase::RollingBack => {
                roll_back(&Towards::new(situation, record.stable.number), candidate)
            }
            Phase::Paused => waiting(format!("paused: {}", candidate.reason)),
        },
    }
}

fn waiting(what: String) -> Step {
    Step {
        waits: Some(what),
        ..Step::default()
    }
}

/// Machines that missed an update take their turn.
fn catch_up(towards: &Towards<'_>) -> Step {
    let behind = |machine: &Standing<'_>| machine.report.is_some_and(|report| report.deferred);
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
                "{left} machines missed revision {} and wait for their turn; {}{}",
                towards.revision,
                towards.spent(),
                towards.unknown()
            )
        }),
        grants,
        ..Step::default()
    }
}

fn roll(towards: &Towards<'_>, candidate: &Candidate) -> Step {
    let pardoned =
        |machine: &Standing<'_>| !machine.was_available || candidate.failed_on.contains(machine.id);
    let failed: Vec<&Standing<'_>> = towards
        .machines
        .iter()
        .filter(|machine| machine.failure().is_some() && !pardoned(machine))
        .collect();
    if !failed.is_empty() {
        return towards.fail(format!("it failed on {}", named(&failed)), &failed);
    }
    let pending: Vec<&Standing<'_>> = towards
        .machines
        .iter()
        .filter(|machine| machine.may_move() && !machine.is_done())
        .collect();
    if pending.is_empty() {
        return end(towards, candidate);
    }
    let count = towards.machines.iter().filter(|it| it.is_done()).count();
    let clock = Clock::of(towards, count);
    if clock.is_up(towards.situation.now) {
        let reason = format!(
            "no further machine became available for {}: waiting for {}{}",
            humantime::format_duration(towards.situation.policy.progress_deadline),
            named(&pending),
            towards.unknown()
        );
        return towards.fail(reason, &[]);
    }
    // No more machines try an unproven revision at once than the budget, even where the unit is down anyway.
    let trying = towards
        .machines
        .iter()
        .filter(|machine| (machine.on || machine.moving) && !machine.is_done())
        .count();
    let grants = towards.grants(|_| true, towards.budget.saturating_sub(trying));
    Step {
        why: towards.spent(),
        grants,
        change: None,
        waits: Some(format!(
            "{count} of {} machines are done; waiting for {}{}",
            towards.machines.len(),
            named(&pending),
            towards.unknown()
        )),
        progress: clock.write,
        wake_at: clock.wake_at,
    }
}

/// Every machine has the candidate, and it is known how it fares there.
fn end(towards: &Towards<'_>, candidate: &Candidate) -> Step {
    let failed: Vec<&Standing<'_>> = towards
        .machines
        .iter()
        .filter(|machine| machine.failure().is_some())
        .collect();
    let available = towards.machines.iter().filter(|it| it.available).count();
    if available == 0 && failed.iter().any(|it| !candidate.failed_on.contains(it.id)) {
        let reason = format!("no machine has it up; it failed on {}", named(&failed));
        return towards.fail(reason, &failed);
    }
    let all = towards.machines.len() + towards.without.len();
    let reason = match (all, &towards.without[..]) {
        (0, _) => "it belongs on no live machine".to_owned(),
        (_, []) => format!("available on {available} of {all} machines"),
        (_, without) => format!(
            "available on {available} of {all} machines; not on {}",
            named(&without.iter().collect::<Vec<_>>())
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
    // A machine without the unit takes the stable revision by itself, unless it was granted the candidate.
    let has = |machine: &Standing<'_>| machine.report.is_some() || machine.granted.is_some();
    let grants = towards.grants(has, usize::MAX);
    let away: Vec<&Standing<'_>> = towards
        .machines
        .iter()
        .filter(|machine| has(machine) && machine.may_move() && !machine.is_there)
        .collect();
    let unsettled: Vec<&Standing<'_>> = towards
        .machines
        .iter()
        .filter(|machine| machine.may_move() && !machine.available && machine.failure().is_none())
        .collect();
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
            "rolling back; waiting for {}{}",
            named(waits),
            towards.unknown()
        )),
        wake_at: away.is_empty().then_some(deadline),
        ..Step::default()
    }
}

fn change(change: Transition) -> Step {
    Step {
        change: Some(change),
        ..Step::default()
    }
}

/// Machines on their way to one revision.
struct Towards<'a> {
    situation: &'a Situation<'a>,
    revision: u64,
    machines: Vec<Standing<'a>>,
    /// Those that have nothing of the unit and say why they cannot, such as a name that is taken.
    /// Nothing moves there, so they spend no budget, and the rollout does not wait for them. Once
    /// they can, they take the stable revision by themselves, or take their turn.
    without: Vec<Standing<'a>>,
    budget: usize,
    unavailable: usize,
}

/// A machine on its way.
struct Standing<'a> {
    id: &'a MachineId,
    session: SessionId,
    cordoned: bool,
    report: Option<&'a UnitReport>,
    /// The revision that a grant to this session names.
    granted: Option<u64>,
    /// It has the revision in place.
    on: bool,
    /// It has been granted the revision and is not known to have it.
    moving: bool,
    /// It has the revision, and is not about to go anywhere else.
    is_there: bool,
    /// It does not go down by what was decided so far, and is up.
    available: bool,
    /// Whether it was when the rollout came to it.
    was_available: bool,
    problem: Option<&'a str>,
    unknown: Option<Unknown<'a>>,
}

impl<'a> Towards<'a> {
    fn new(situation: &'a Situation<'a>, revision: u64) -> Self {
        let machines = situation.machines.iter();
        let (without, machines): (Vec<_>, Vec<_>) = machines
            .map(|machine| Standing::of(machine, situation, revision))
            .partition(|machine| machine.report.is_none() && machine.problem.is_some());
        Self {
            situation,
            revision,
            without,
            budget: situation.policy.budget(machines.len()),
            unavailable: machines.iter().filter(|it| !it.available).count(),
            machines,
        }
    }

    /// Grants to those of these machines that may go now; `at_most`: where the unit is down anyway too.
    fn grants(&self, these: impl Fn(&Standing<'_>) -> bool, at_most: usize) -> Vec<GrantTo> {
        let mut room = self.budget.saturating_sub(self.unavailable);
        let waiting = self.machines.iter().filter(|machine| {
            these(machine) && machine.may_move() && !machine.is_there && !machine.moving
        });
        // First those that it costs nothing.
        let (up, down): (Vec<_>, Vec<_>) = waiting.partition(|machine| machine.available);
        let up = up.into_iter().filter(|_| {
            let may = room > 0;
            room = room.saturating_sub(1);
            may
        });
        down.into_iter()
            .chain(up)
            .take(at_most)
            .map(|machine| GrantTo {
                machine: machine.id.clone(),
                grant: Grant {
                    unit: self.situation.created,
                    revision: self.revision,
                    session: machine.session,
                    was_available: machine.was_available,
                },
            })
            .collect()
    }

    /// `failed`: the machines whose failures a resume pardons.
    fn fail(&self, reason: String, failed: &[&Standing<'_>]) -> Step {
        change(match self.situation.policy.on_failure {
            OnFailure::Rollback => Transition::RollBack(reason),
            OnFailure::Pause => {
                Transition::Pause(reason, failed.iter().map(|it| it.id.clone()).collect())
            }
        })
    }

    /// Returns the machines whose state is unknown, in words.
    fn unknown(&self) -> String {
        let machines = self.machines.iter();
        let unknown: Vec<&Standing<'_>> = machines.filter(|it| it.unknown.is_some()).collect();
        match unknown.as_slice() {
            [] => String::new(),
            unknown => format!("; counted as down: {}", named(unknown)),
        }
    }

    /// How much of the budget is spent, in words.
    fn spent(&self) -> String {
        format!(
            "{} of {} machines unavailable, {} may be",
            self.unavailable,
            self.machines.len(),
            self.budget
        )
    }
}

impl<'a> Standing<'a> {
    fn of(machine: &OnMachine<'a>, situation: &Situation<'_>, revision: u64) -> Self {
        let is_known = machine.unknown.is_none();
        let grant = machine.grant.filter(|_| is_known);
        let ours = grant.filter(|(it, _)| it.unit == situation.created);
        let valid = ours.filter(|(grant, _)| grant.session == machine.session);
        let granted = valid.map(|(grant, _)| grant.revision);
        let report = machine.report.filter(|_| is_known);
        let on = report.is_some_and(|report| report.revision == revision);
        let confirmed =
            valid.is_none_or(|(_, written)| report.is_some_and(|it| it.grant >= written));
        let moving = granted == Some(revision) && !(on && confirmed);
        let up = report.is_some_and(|report| report.available);
        let stable = situation.record.stable.number;
        let elsewhere = granted.is_some_and(|it| it > stable && it != revision);
        // Of a machine that had already gone to a candidate, what counts is how it was before.
        let was_available = match ours {
            Some((grant, _)) if grant.revision > stable => grant.was_available,
            _ => up,
        };
        Self {
            id: machine.id,
            session: machine.session,
            cordoned: machine.cordoned,
            report,
            granted,
            on,
            moving,
            is_there: on && !moving && !elsewhere,
            available: up && !moving && confirmed,
            was_available,
            problem: machine.problem,
            unknown: machine.unknown,
        }
    }

    /// Returns whether it may be granted a revision, so that the rollout waits for it.
    fn may_move(&self) -> bool {
        !self.cordoned && self.unknown.is_none()
    }

    /// Why the revision does not work there.
    fn failure(&self) -> Option<&'a str> {
        let report = self.report.filter(|_| self.on && !self.moving)?;
        report.failed.as_deref().filter(|_| !report.available)
    }

    /// Whether nothing more can be expected of it. A machine that did not have the unit before
    /// loses nothing without it.
    fn is_done(&self) -> bool {
        self.on && (self.available || self.failure().is_some())
            || !self.was_available && self.problem.is_some()
    }

    fn state(&self) -> String {
        if let Some(why) = self.unknown {
            return why.to_string();
        }
        match (self.report, self.failure().or(self.problem)) {
            (_, Some(why)) => why.to_owned(),
            (Some(_), _) if self.moving => "told, not there yet".to_owned(),
            (Some(_), _) if !self.on => "its turn".to_owned(),
            (Some(report), _) if report.ready => "up, watched for MinReadySec".to_owned(),
            (Some(report), _) => format!("{} ({})", report.active, report.sub),
            (None, _) => "not in place yet".to_owned(),
        }
    }
}

/// The first of the machines, with how they stand.
fn named(machines: &[&Standing<'_>]) -> String {
    let mut text = machines
        .iter()
        .take(NAMED)
        .map(|machine| format!("{}: {}", machine.id.short(), machine.state()))
        .collect::<Vec<_>>()
        .join(", ");
    if machines.len() > NAMED {
        text += &format!(", and {} more", machines.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests;
