//! All machines of a unit on their way to one revision, and how much of the budget they spend.

use super::standing::Standing;
use super::words::named;
use super::{GrantTo, Situation, Step, change, ids};
use crate::machine::MachineId;
use crate::record::Grant;
use crate::rollout::Transition;
use crate::unit::{OnFailure, UnitFile, service_type};

/// Machines on their way to one revision.
pub(super) struct Towards<'a> {
    pub(super) situation: &'a Situation<'a>,
    pub(super) revision: u64,
    pub(super) machines: Vec<Standing<'a>>,
    /// Machines without the unit that report why they cannot have it, such as a name that is
    /// taken. They cost nothing and are not waited for. Once they can, they take the stable
    /// revision by themselves, or their turn.
    pub(super) without: Vec<Standing<'a>>,
    /// Those where the unit does not belong any more.
    pub(super) leavers: Vec<Standing<'a>>,
    pub(super) budget: usize,
    pub(super) unavailable: usize,
}

impl<'a> Towards<'a> {
    pub(super) fn new(situation: &'a Situation<'a>, revision: u64) -> Self {
        let machines = situation.machines.iter();
        let machines = machines.filter_map(|machine| Standing::of(machine, situation, revision));
        let (leavers, machines): (Vec<_>, Vec<_>) = machines.partition(|it| it.leaves.is_some());
        let (without, machines): (Vec<_>, Vec<_>) =
            machines.into_iter().partition(Standing::cannot_have_it);
        let costing = |machines: &[Standing<'_>]| machines.iter().filter(|it| it.costs()).count();
        Self {
            situation,
            revision,
            without,
            budget: situation.policy.budget(machines.len()),
            unavailable: costing(&machines) + costing(&leavers),
            machines,
            leavers,
        }
    }

    pub(super) fn those(&self, these: impl Fn(&Standing<'_>) -> bool) -> Vec<&Standing<'a>> {
        self.machines.iter().filter(|it| these(it)).collect()
    }

    /// Returns grants to those of these machines that may go now. `at_most`: the most machines,
    /// including those where the unit is down anyway.
    pub(super) fn grants(
        &self,
        these: impl Fn(&Standing<'_>) -> bool,
        at_most: usize,
    ) -> Vec<GrantTo> {
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
            .filter_map(|machine| self.grant(machine, false))
            .collect()
    }

    /// Returns the grant of the revision, or of a stop if `leaves`; `None` if the machine is
    /// offline.
    pub(super) fn grant(&self, machine: &Standing<'_>, leaves: bool) -> Option<GrantTo> {
        Some(GrantTo {
            machine: machine.id.clone(),
            grant: Grant {
                unit: self.situation.created,
                revision: self.revision,
                session: machine.session?,
                was_available: machine.was_available,
                proved: false,
                leaves,
            },
        })
    }

    /// The grants of machines that prove the revision now, and are not marked so.
    pub(super) fn proofs(&self) -> Vec<GrantTo> {
        let proving = self.machines.iter().filter(|it| it.proves());
        let unmarked = proving.filter_map(|it| Some((it.id, it.valid_grant?)));
        unmarked
            .filter(|(_, grant)| grant.revision == self.revision && !grant.proved)
            .map(|(id, grant)| proved(id, grant))
            .collect()
    }

    /// `failed`: the machines that a person who resumes it pardons.
    pub(super) fn fail(&self, reason: String, failed: &[&Standing<'_>]) -> Step {
        change(match self.situation.policy.on_failure {
            OnFailure::Rollback => Transition::RollBack(reason),
            OnFailure::Pause => Transition::Pause(reason, ids(failed)),
        })
    }

    /// The deadline is over. `pending`: whatever is waited for.
    pub(super) fn overdue(
        &self,
        proved: &[&Standing<'_>],
        moving: &[&Standing<'_>],
        unknown: &[&Standing<'_>],
        lost: &[&Standing<'_>],
        pending: &[&Standing<'_>],
    ) -> Step {
        let late = humantime::format_duration(self.situation.policy.progress_deadline);
        if !proved.is_empty() && moving.is_empty() {
            let reason = format!(
                "the state of a machine is unknown for {late}: {}; fix it or cordon it, then resume",
                named(unknown)
            );
            return change(Transition::Pause(reason, Vec::new()));
        }
        let waits = format!(
            "no further machine became available for {late}: waiting for {}; {}",
            named(pending),
            self.spent()
        );
        let trying = self
            .machines
            .iter()
            .any(|it| it.on && !it.is_done() || it.moving);
        let by_others = self
            .those(|it| it.costs() && it.on && it.is_excused())
            .len();
        if !trying && lost.is_empty() && !proved.is_empty() && by_others >= self.budget {
            // These machines have proved it: that they are down says nothing against it.
            return change(Transition::Pause(waits, Vec::new()));
        }
        let cut_off = self.those(|it| it.is_lost || it.may_be_lost);
        match cut_off.as_slice() {
            [] => self.fail(waits, &[]),
            cut_off => self.fail(format!("{}; {waits}", self.lost(cut_off)), cut_off),
        }
    }

    /// Returns whether a oneshot is in the middle of its run. systemd ends it when its own
    /// `TimeoutStartSec=` is over.
    pub(super) fn runs_to_its_end(&self) -> bool {
        let starts = |it: &Standing<'_>| {
            let report = it.report.filter(|_| it.on && it.may_move());
            report.is_some_and(|it| it.active == "activating" && it.sub.starts_with("start"))
        };
        let heading = &self.situation.record.heading().content;
        self.machines.iter().any(starts)
            && service_type(&UnitFile::parse(heading.as_bytes())).oneshot
    }

    /// When to look again: then, or when a machine is not waited for any longer.
    pub(super) fn wake_at(&self, at: Option<u64>) -> Option<u64> {
        let machines = self.machines.iter().chain(&self.leavers);
        let machines = machines.filter_map(|it| it.counts_until);
        machines.chain(at).min()
    }
}

/// Returns the grant of a machine, marked as proved.
pub(super) fn proved(machine: &MachineId, grant: &Grant) -> GrantTo {
    GrantTo {
        machine: machine.clone(),
        grant: Grant {
            proved: true,
            ..grant.clone()
        },
    }
}
