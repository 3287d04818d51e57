//! One machine on its way to a revision: what it costs, and what it says about the revision.

use super::clock::millis;
use super::{OnMachine, Presence, Situation, Unknown};
use crate::machine::{MachineId, SessionId};
use crate::place::Reason;
use crate::record::{Grant, UnitReport};

/// A machine on its way.
pub(super) struct Standing<'a> {
    pub(super) id: &'a MachineId,
    /// Its present session; none while it is not here.
    pub(super) session: Option<SessionId>,
    pub(super) cordoned: bool,
    pub(super) report: Option<&'a UnitReport>,
    /// The grant to this session.
    pub(super) valid_grant: Option<&'a Grant>,
    /// The revision that it names.
    pub(super) granted: Option<u64>,
    /// It has the revision in place.
    pub(super) on: bool,
    /// It has been granted the revision and is not known to have it.
    pub(super) moving: bool,
    /// It has the revision, and is not about to go anywhere else.
    pub(super) is_there: bool,
    /// It does not go down by what was decided so far, and is up.
    pub(super) available: bool,
    /// Whether it was when the rollout came to it.
    pub(super) was_available: bool,
    /// It went offline after it was granted the candidate.
    pub(super) is_lost: bool,
    /// It is not back since another leader began, and was granted the candidate before.
    pub(super) may_be_lost: bool,
    /// Until when it counts although it is not here.
    pub(super) counts_until: Option<u64>,
    /// Why it does not belong there any more.
    pub(super) leaves: Option<&'a Reason>,
    /// The leader let it go, and it has not said yet that it is gone.
    is_going: bool,
    /// It has proved the revision in an earlier session: what happened since says nothing about the
    /// revision.
    proved_before: bool,
    pub(super) problem: Option<&'a str>,
    pub(super) unknown: Option<Unknown<'a>>,
}

impl<'a> Standing<'a> {
    /// None for a machine that costs nothing and is not waited for: it was offline before it was
    /// granted anything, or for longer than the deadline, or it is cordoned and offline.
    pub(super) fn of(
        machine: &OnMachine<'a>,
        situation: &Situation<'_>,
        revision: u64,
    ) -> Option<Self> {
        let ours = machine.grant.filter(|(it, _)| it.unit == situation.created);
        let mut unknown = machine.unknown;
        let mut counts_until = None;
        let (mut is_lost, mut may_be_lost) = (false, false);
        let session = match machine.presence {
            Presence::Live(session) => Some(session),
            _ if machine.cordoned => return None,
            Presence::Awaited(until) => {
                unknown = Some(Unknown::Untold("it is not back since another leader began"));
                counts_until = Some(until);
                may_be_lost =
                    ours.is_some_and(|(grant, _)| grant.revision == revision && !grant.proved);
                None
            }
            Presence::Offline(since) => {
                let candidate = situation.record.candidate.as_ref();
                let may_be_cut_off = ours.is_some_and(|(grant, _)| match candidate {
                    _ if machine.leaves.is_some() => grant.leaves && !grant.proved,
                    Some(candidate) => grant.revision == candidate.revision.number,
                    None => grant.revision == revision && !grant.proved,
                });
                let since = situation.counted(since.unwrap_or(situation.now));
                let until = since.saturating_add(millis(situation.policy.progress_deadline));
                if !may_be_cut_off || situation.now >= until {
                    return None;
                }
                counts_until = Some(until);
                is_lost = true;
                None
            }
        };
        // One that is not back yet may be on its way out still.
        let lets_go = ours.is_some_and(|(grant, _)| {
            grant.leaves && session.map_or(!grant.proved, |session| grant.session == session)
        });
        let is_known = unknown.is_none() && session.is_some();
        let known_grant = ours.filter(|_| is_known);
        let valid = known_grant.filter(|(grant, _)| Some(grant.session) == session);
        let granted = valid.filter(|(grant, _)| !grant.leaves);
        let granted = granted.map(|(grant, _)| grant.revision);
        let report = machine.report.filter(|_| is_known);
        let on = report.is_some_and(|report| report.revision == revision);
        let confirmed = valid.is_none_or(|(grant, written)| {
            grant.proved || report.is_some_and(|it| it.grant >= written)
        });
        let moving = granted == Some(revision) && !(on && confirmed);
        let up = report.is_some_and(|report| report.available);
        let stable = situation.record.stable.number;
        let elsewhere = granted.is_some_and(|it| it > stable && it != revision);
        // A machine that had already gone to a candidate was as that grant says. So was one that is
        // not up in the session of its grant: a rollback may have come before it was. Grants go
        // once they were followed, and one of an earlier session says nothing about today.
        let has_gone = report.is_some_and(|it| on || it.revision > stable);
        let went = known_grant.filter(|_| has_gone).or(valid);
        Some(Self {
            id: machine.id,
            session,
            cordoned: machine.cordoned,
            report,
            valid_grant: valid.map(|(grant, _)| grant),
            granted,
            on,
            moving,
            is_there: on && !moving && !elsewhere,
            available: up && !moving && confirmed,
            was_available: up || went.is_some_and(|(grant, _)| grant.was_available),
            is_lost,
            may_be_lost,
            counts_until,
            leaves: machine.leaves,
            is_going: machine.leaves.is_some() && lets_go && (report.is_none() || !confirmed),
            proved_before: known_grant.is_some_and(|(grant, _)| {
                grant.proved && grant.revision == revision && Some(grant.session) != session
            }),
            problem: machine.problem,
            unknown,
        })
    }

    /// Whether it may be told to go anywhere, and so is waited for.
    pub(super) fn may_move(&self) -> bool {
        self.session.is_some() && !self.cordoned && self.unknown.is_none()
    }

    /// Whether its state has to be known before anything is promoted.
    pub(super) fn is_unknown(&self) -> bool {
        self.unknown.is_some() && !self.cordoned
    }

    /// Whether it runs what does not belong there, and waits for its turn to stop.
    pub(super) fn waits_to_leave(&self) -> bool {
        let says_so = self.report.is_some_and(|report| report.leaving);
        self.leaves.is_some() && says_so && !self.is_going && self.may_move()
    }

    /// Whether it has given the unit up.
    pub(super) fn has_left(&self) -> bool {
        self.is_going && self.report.is_none() && self.session.is_some() && self.unknown.is_none()
    }

    /// Whether it never came up there yet: nothing was taken down.
    pub(super) fn is_new(&self) -> bool {
        self.report.is_some_and(|report| !report.launched)
    }

    /// Whether it has nothing of the unit, and says why it cannot.
    pub(super) fn cannot_have_it(&self) -> bool {
        self.report.is_none() && self.problem.is_some() && self.session.is_some()
    }

    /// Whether it runs the revision steadily.
    pub(super) fn proves(&self) -> bool {
        self.on && self.available
    }

    /// Why the revision does not work there.
    pub(super) fn failure(&self) -> Option<&'a str> {
        let report = self.report.filter(|_| self.on && !self.moving)?;
        report.failed.as_deref().filter(|_| !report.available)
    }

    /// Whether it had the revision up for long enough: its failure since says nothing about the
    /// revision.
    pub(super) fn is_excused(&self) -> bool {
        self.proved_before || self.report.is_some_and(|report| report.settled)
    }

    /// Whether its failure is the revision's.
    pub(super) fn blames(&self) -> bool {
        self.failure().is_some() && !self.is_excused()
    }

    /// Whether nothing more can be expected of it. One that did not have the unit before is no
    /// worse off without it.
    pub(super) fn is_done(&self) -> bool {
        self.on && (self.available || self.failure().is_some())
            || !self.was_available && self.problem.is_some()
    }

    /// Whether it spends the budget. A person who cordons a machine answers for it; and a machine
    /// where the unit was broken before, and is as broken with the revision, cannot be made worse.
    pub(super) fn costs(&self) -> bool {
        if self.leaves.is_some() {
            return self.is_going && !self.has_left() || self.is_lost || self.moving;
        }
        let is_as_broken = self.failure().is_some() && !self.was_available;
        !self.available && !is_as_broken && (!self.cordoned || self.moving)
    }
}
