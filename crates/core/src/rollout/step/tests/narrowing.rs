//! Machines where a unit does not belong any more.

use std::collections::BTreeSet;

use super::*;

fn elsewhere() -> Reason {
    Reason::Metadata {
        key: "kind".to_owned(),
        accepted: vec!["al".to_owned()],
        found: Some("all".to_owned()),
    }
}

impl Fleet {
    /// A unit without an update that runs on so many machines.
    fn stable(machines: usize, max_unavailable: u32) -> Self {
        let mut fleet = Self::rolling(machines, max_unavailable);
        fleet.record.candidate = None;
        fleet
    }

    /// The unit does not belong there any more, and the machine reports that it keeps it.
    fn leaves(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        machine.leaves = Some(elsewhere());
        machine.report = up(1).map(|report| UnitReport {
            leaving: true,
            deferred: true,
            ..report
        });
    }

    /// The leader writes its grants and progress; answers the machines that may stop it.
    fn lets_go(&mut self) -> Vec<usize> {
        let step = self.step();
        self.progress = step.progress.or(self.progress.take());
        let mut granted = Vec::new();
        for it in step.grants.into_iter().chain(step.proofs) {
            let at = self
                .machines
                .iter()
                .position(|machine| machine.id == it.machine);
            let at = at.expect("one of them");
            if it.grant.leaves && !it.grant.proved {
                granted.push(at);
            }
            self.machines[at].grant = Some((it.grant, 200));
        }
        granted
    }

    fn is_gone(&mut self, at: usize) {
        self.machines[at].report = None;
    }

    fn waits(&self) -> String {
        self.step().waits.unwrap_or_default()
    }
}

#[test]
fn a_unit_leaves_its_machines_one_after_the_other() {
    let mut fleet = Fleet::stable(3, 1);
    (0..3).for_each(|at| fleet.leaves(at));
    let why = fleet.step().why;
    assert_eq!(
        why,
        "stops on 00000000, 00000000, 00000000: it needs kind=al, and kind=all here; \
         0 of 3 machines unavailable, at most 1 allowed"
    );
    assert_eq!(fleet.lets_go(), [0]);
    assert_eq!(fleet.lets_go(), [0; 0], "the first has not stopped it yet");
    fleet.is_gone(0);
    assert_eq!(
        fleet.lets_go(),
        [0; 0],
        "the others are watched for MinReadySec"
    );
    let wake_at = fleet.step().wake_at;
    assert_eq!(wake_at, Some(fleet.now + 5_000));
    fleet.now += 5_000;
    assert_eq!(fleet.lets_go(), [1]);
    fleet.is_gone(1);
    fleet.now += 5_000;
    assert_eq!(fleet.lets_go(), [2]);
    fleet.is_gone(2);
    assert_eq!(fleet.step().waits, None);
}

#[test]
fn update_strategy_all_lets_every_machine_go_at_once() {
    let mut fleet = Fleet::stable(3, 1);
    fleet.policy.strategy = crate::unit::UpdateStrategy::All;
    (0..3).for_each(|at| fleet.leaves(at));
    assert_eq!(fleet.lets_go(), [0, 1, 2]);
}

#[test]
fn a_unit_that_moves_is_up_elsewhere_before_it_leaves() {
    let mut fleet = Fleet::stable(2, 1);
    fleet.leaves(0);
    fleet.machines[1].report = None;
    assert_eq!(fleet.lets_go(), [0; 0]);
    assert!(
        fleet.waits().contains("1 of 2 machines unavailable"),
        "{}",
        fleet.waits()
    );
    fleet.machines[1].report = up(1);
    assert_eq!(fleet.lets_go(), [0]);
}

#[test]
fn units_that_wait_for_each_other_to_leave_do_both_leave() {
    let mut fleet = Fleet::stable(2, 1);
    fleet.leaves(0);
    // In place, and not started: what conflicts with it has to go first.
    fleet.machines[1].report = failed(1).map(|report| UnitReport {
        launched: false,
        failed: None,
        ..report
    });
    assert_eq!(fleet.lets_go(), [0]);
}

#[test]
fn a_unit_that_is_down_leaves_at_once() {
    let mut fleet = Fleet::stable(3, 1);
    (0..2).for_each(|at| fleet.leaves(at));
    fleet.machines[1].report.as_mut().expect("one").available = false;
    fleet.machines[2].report.as_mut().expect("one").available = false;
    assert_eq!(fleet.lets_go(), [1], "another one is down");
}

#[test]
fn a_machine_that_goes_offline_as_it_stops_it_holds_the_others() {
    let mut fleet = Fleet::stable(3, 1);
    (0..3).for_each(|at| fleet.leaves(at));
    assert_eq!(fleet.lets_go(), [0]);
    fleet.goes_offline(0, fleet.now);
    fleet.now += 60_000;
    assert_eq!(fleet.lets_go(), [0; 0]);
    assert!(
        fleet
            .waits()
            .contains("offline since it was told to stop it")
    );
    fleet.now += 600_000;
    assert_eq!(fleet.lets_go(), [1], "its deadline is over");
    // One that reported that it is gone may go offline.
    fleet.is_gone(1);
    fleet.now += 5_000;
    fleet.machines[2].cordoned = true;
    assert_eq!(fleet.lets_go(), [0; 0]);
    fleet.machines[2].cordoned = false;
    fleet.machines[1].presence = Presence::Offline(Some(fleet.now));
    assert_eq!(fleet.step().grants.len(), 1);
}

#[test]
fn a_grant_to_stop_that_came_too_late_is_given_again() {
    let mut fleet = Fleet::stable(1, 1);
    fleet.leaves(0);
    assert_eq!(fleet.lets_go(), [0]);
    // It belonged there again when that came, and now it does not.
    let report = fleet.machines[0].report.as_mut().expect("one");
    report.grant = 200;
    fleet.now += 5_000;
    assert_eq!(fleet.lets_go(), [0]);
}

#[test]
fn a_rollout_takes_no_unit_away() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.leaves(2);
    let grants = fleet.step().grants;
    let machines: BTreeSet<_> = grants.iter().map(|it| it.machine.clone()).collect();
    assert_eq!(machines, BTreeSet::from([id(0)]));
    assert!(!grants[0].grant.leaves);
}
