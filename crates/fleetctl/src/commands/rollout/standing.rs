//! The state of an update and of each of its machines.

use std::collections::BTreeMap;

use fleet_core::api::{RolloutMachine, RolloutStatus};
use fleet_core::rollout::{Ended, Phase};
use fleet_core::unit::TargetState;

/// The state of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The newest revision is stable, and no machine is moving to it.
    Done,
    /// Machines are moving to it.
    Rolling,
    /// The update waits for an order.
    Paused,
    /// Machines are returning.
    RollingBack,
    /// All machines have returned.
    RolledBack,
}

impl Standing {
    pub(super) fn of(status: &RolloutStatus) -> Self {
        let row = &status.row;
        if row.candidate.is_some() {
            return match row.phase.as_str() {
                phase if phase == Phase::Paused.as_str() => Self::Paused,
                phase if phase == Phase::RollingBack.as_str() => Self::RollingBack,
                _ => Self::Rolling,
            };
        }
        // A revision that was rolled back earlier does not judge the one after it.
        let newest = status.last.as_ref().filter(|it| it.revision > row.revision);
        let on_its_way = |machine| {
            let class = Class::of(machine, status);
            matches!(class, Some(Class::Starting | Class::Waiting))
        };
        if newest.is_some_and(|last| last.ended == Ended::RolledBack.as_str()) {
            Self::RolledBack
        } else if status.machines.iter().any(on_its_way) {
            Self::Rolling
        } else {
            Self::Done
        }
    }

    /// Returns whether nothing changes any more without an order.
    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Paused | Self::RolledBack)
    }
}

/// The state of a machine in an update, in order of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// The machine has the revision, and the unit is available.
    Done,
    /// The machine may take the revision, or has it and is not available yet.
    Starting,
    /// The machine's turn is yet to come.
    Waiting,
    /// The unit cannot become ready there by itself.
    Failed,
    /// The rollout does not wait for the machine.
    Deferred,
}

impl Class {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Deferred => "deferred",
        }
    }

    /// Returns the state. `None` if the unit does not belong there and only has to be removed.
    fn of(machine: &RolloutMachine, status: &RolloutStatus) -> Option<Self> {
        let launched = status.row.desired_state == TargetState::Launched.as_str();
        let wanted = machine.wanted;
        Some(if machine.deferred {
            Self::Deferred
        } else if wanted.is_none() {
            return None;
        } else if machine.failed.is_some() {
            Self::Failed
        } else if machine.revision == wanted && (machine.available || !launched) {
            Self::Done
        } else if machine.revision == wanted || machine.granted == wanted {
            Self::Starting
        } else if machine.revision.is_none() && status.row.candidate.is_none() {
            // It takes the stable revision without a grant.
            Self::Starting
        } else {
            Self::Waiting
        })
    }
}

/// Returns the machines of each class, by id.
pub(super) fn classes(status: &RolloutStatus) -> BTreeMap<Class, Vec<&RolloutMachine>> {
    let mut classes: BTreeMap<Class, Vec<&RolloutMachine>> = BTreeMap::new();
    if status.row.desired_state == TargetState::Inactive.as_str() {
        return classes;
    }
    for machine in &status.machines {
        if let Some(class) = Class::of(machine, status) {
            classes.entry(class).or_default().push(machine);
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use fleet_core::api::{LastRollout, RolloutRow};

    use super::*;

    fn machine(revision: u64) -> RolloutMachine {
        RolloutMachine {
            live: true,
            wanted: Some(2),
            revision: Some(revision),
            available: true,
            ..RolloutMachine::default()
        }
    }

    fn status(candidate: Option<u64>, phase: &str, machines: Vec<RolloutMachine>) -> RolloutStatus {
        RolloutStatus {
            row: RolloutRow {
                desired_state: "launched".into(),
                revision: if candidate.is_some() { 1 } else { 2 },
                candidate,
                phase: phase.into(),
                ..RolloutRow::default()
            },
            machines,
            ..RolloutStatus::default()
        }
    }

    #[test]
    fn class_follows_from_revision_and_grant() {
        let status = status(Some(2), "rolling", Vec::new());
        let class = |change: &dyn Fn(&mut RolloutMachine)| {
            let mut machine = machine(1);
            change(&mut machine);
            Class::of(&machine, &status)
        };
        assert_eq!(class(&|_| {}), Some(Class::Waiting));
        assert_eq!(class(&|it| it.granted = Some(2)), Some(Class::Starting));
        assert_eq!(class(&|it| it.revision = Some(2)), Some(Class::Done));
        let unsteady = |it: &mut RolloutMachine| {
            it.revision = Some(2);
            it.available = false;
        };
        assert_eq!(class(&unsteady), Some(Class::Starting));
        assert_eq!(
            class(&|it| it.failed = Some(String::new())),
            Some(Class::Failed)
        );
        assert_eq!(class(&|it| it.deferred = true), Some(Class::Deferred));
        assert_eq!(class(&|it| it.wanted = None), None);
    }

    #[test]
    fn update_is_done_once_stable_on_every_machine() {
        let standing = |machines| Standing::of(&status(None, "stable", machines));
        assert_eq!(standing(vec![machine(2)]), Standing::Done);
        assert_eq!(standing(vec![machine(2), machine(1)]), Standing::Rolling);
        let mut absent = machine(1);
        absent.deferred = true;
        assert_eq!(standing(vec![machine(2), absent]), Standing::Done);
        let mut broken = machine(2);
        broken.failed = Some("it ended".into());
        assert_eq!(standing(vec![machine(2), broken]), Standing::Done);
    }

    #[test]
    fn only_the_newest_revision_counts_as_rolled_back() {
        let mut status = status(None, "stable", vec![machine(2)]);
        let mut last = |revision| {
            status.last = Some(LastRollout {
                revision,
                ended: "rolled-back".into(),
                ..LastRollout::default()
            });
            Standing::of(&status)
        };
        assert_eq!(last(3), Standing::RolledBack);
        assert_eq!(last(1), Standing::Done);
    }
}
