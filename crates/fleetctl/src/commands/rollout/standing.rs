//! How an update stands: which of its machines are where, and whether it is over.

use std::collections::BTreeMap;

use fleet_core::api::{RolloutMachine, RolloutStatus};
use fleet_core::rollout::{Ended, Phase};
use fleet_core::unit::TargetState;

/// Where an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The newest revision is stable, and no machine is on its way to it.
    Done,
    /// Machines are on their way.
    Rolling,
    /// It waits for an order.
    Paused,
    /// Machines go back.
    RollingBack,
    /// They have gone back.
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
        // An older one that was rolled back says nothing of the revision that came after it.
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

    /// Whether nothing changes any more by itself.
    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Paused | Self::RolledBack)
    }
}

/// Where a machine is on its way, in the order of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// It has the revision, available.
    Done,
    /// It may take the revision, or has it and is not available yet.
    Starting,
    /// Its turn is to come.
    Waiting,
    /// The unit will not become ready there by itself.
    Failed,
    /// The rollout does not wait for it.
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

    /// None where the unit does not belong: it only has to go.
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
            // It takes the stable revision by itself.
            Self::Starting
        } else {
            Self::Waiting
        })
    }
}

/// The machines of each class, by id.
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
    fn a_machine_is_where_its_revision_and_its_grant_say() {
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
    fn update_ends_when_it_is_stable_and_no_machine_is_on_its_way() {
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
