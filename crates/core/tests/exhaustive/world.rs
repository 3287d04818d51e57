//! A state of the fleet: the registry, what the machines know of it, and what is true.

use super::leader::Commit;
use super::machine::Machine;
use super::model::{Action, Fleet};

pub(crate) const MACHINES: usize = 3;

/// The store revision that made the unit.
pub(crate) const CREATED: u64 = 1;

/// A progress deadline in milliseconds, which is one tick.
pub(crate) const DEADLINE: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Rolling,
    Paused,
    RollingBack,
}

/// The unit's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) stable: u8,
    pub(crate) candidate: Option<(u8, Phase)>,
    /// The highest number that a revision ever had.
    pub(crate) newest: u8,
}

/// How far the rollout had come: its revision, machines that were done, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Progress {
    pub(crate) revision: u8,
    pub(crate) done: u8,
    pub(crate) tick: u8,
}

/// What must never happen, and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// A commit landed that was decided by an older leader, or from an older record.
    Stale,
    /// A revision was promoted that no machine had proved.
    Unproved,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) record: Record,
    pub(crate) progress: Option<Progress>,
    pub(crate) machines: [Machine; MACHINES],
    pub(crate) tick: u8,
    /// When the leader first looked at the rollout in its phase.
    pub(crate) since: u8,
    /// Whether the leader still waits for machines that it has never seen.
    pub(crate) awaits: bool,
    /// A commit whose answer was lost, and which may still land.
    pub(crate) late: Option<Commit>,
    /// Whether a machine has reported the candidate as available.
    pub(crate) is_proved: bool,
    pub(crate) wrong: Option<Wrong>,
    /// How many events may still happen.
    pub(crate) left: u8,
}

impl World {
    /// Every machine runs revision 1, and revision 2 has just been submitted.
    pub(crate) fn new(left: u8) -> Self {
        Self {
            record: Record {
                stable: 1,
                candidate: Some((2, Phase::Rolling)),
                newest: 2,
            },
            progress: None,
            machines: [Machine::new(); MACHINES],
            tick: 0,
            since: 0,
            awaits: false,
            late: None,
            is_proved: false,
            wrong: None,
            left,
        }
    }

    /// Machines are alike: which of them is in a state makes no difference.
    pub(crate) fn sort(&mut self) {
        self.machines.sort_unstable();
    }

    /// One of each kind of machine: what happens to one of two equal machines happens to the other.
    pub(crate) fn different(&self) -> impl Iterator<Item = usize> {
        (0..MACHINES).filter(|at| *at == 0 || self.machines[*at] != self.machines[*at - 1])
    }

    /// Lets that happen. None if it cannot happen now.
    pub(crate) fn happens(&mut self, fleet: &Fleet, action: Action) -> Option<()> {
        if action.is_event() {
            self.left = self.left.checked_sub(1)?;
        }
        match action {
            Action::HearUnit(at) => self.hears_unit(at),
            Action::HearGrant(at) => self.hears_grant(at),
            Action::Comes(at) => self.machines[at].comes(fleet.nature),
            Action::Report(at) => self.reports(at),
            Action::Lead(order) => self.leads(fleet, order),
            Action::LeadUnanswered(order) => self.leads_unanswered(fleet, order),
            Action::Lands => self.lands(fleet),
            Action::LeaderChange => {
                self.awaits = true;
                self.since = self.tick;
                if let Some(late) = &mut self.late {
                    late.is_of_leader = false;
                }
                Some(())
            }
            Action::Tick => {
                self.tick += 1;
                self.awaits = false;
                self.machines.iter_mut().for_each(Machine::settles);
                Some(())
            }
            Action::Crash(at) => self.machines[at].crashes(),
            Action::CutOff(at) => self.machines[at].is_cut_off(),
            Action::Reboot(at) => self.machines[at].goes_down(),
            Action::Expire(at) => {
                let tick = self.tick;
                self.machines[at].expires(tick)
            }
            Action::Return(at) => self.returns(fleet, at),
            Action::Update => self.updates(),
            Action::Undo => self.orders(fleet_core::rollout::Order::Undo(None)),
            Action::Pause => self.orders(fleet_core::rollout::Order::Pause),
            Action::Resume => self.orders(fleet_core::rollout::Order::Resume),
            Action::Cordon(at) => {
                let was = std::mem::replace(&mut self.machines[at].shown.cordoned, true);
                (!was).then_some(())
            }
        }
    }

    /// How many machines the update has made unavailable.
    pub(crate) fn unavailable(&self) -> usize {
        let counts = |it: &&Machine| it.is_taken_down() && !it.is_forgiven(self);
        self.machines.iter().filter(counts).count()
    }

    /// The record was written: what was decided from the one before must not land.
    pub(crate) fn record_changed(&mut self) {
        if let Some(late) = &mut self.late {
            late.is_of_record = false;
        }
        self.since = self.tick;
    }
}
