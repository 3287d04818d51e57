mod narrowing;
mod promises;
mod rollbacks;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::record::Revision;
use crate::unit::OnFailure;

/// A unit at revision 1, with revision 2 on its way, on machines 0, 1, 2...
struct Fleet {
    record: UnitRecord,
    policy: Policy,
    progress: Option<Progress>,
    machines: Vec<Given>,
    now: u64,
    since: u64,
}

#[derive(Clone)]
struct Given {
    id: MachineId,
    presence: Presence,
    cordoned: bool,
    grant: Option<(Grant, u64)>,
    report: Option<UnitReport>,
    problem: Option<&'static str>,
    unknown: Option<Unknown<'static>>,
    leaves: Option<Reason>,
}

const CREATED: u64 = 7;

fn revision(number: u64) -> Revision {
    Revision {
        number,
        at: 0,
        content: "".into(),
        restarts: 0,
    }
}

fn id(at: usize) -> MachineId {
    MachineId::parse(&format!("{at:032x}")).expect("valid")
}

fn up(revision: u64) -> Option<UnitReport> {
    Some(UnitReport {
        revision,
        active: "active".to_owned(),
        sub: "running".to_owned(),
        launched: true,
        ready: true,
        available: true,
        ..UnitReport::default()
    })
}

fn failed(revision: u64) -> Option<UnitReport> {
    up(revision).map(|report| UnitReport {
        ready: false,
        available: false,
        failed: Some("failed (exit-code)".to_owned()),
        ..report
    })
}

impl Fleet {
    fn rolling(machines: usize, max_unavailable: u32) -> Self {
        let candidate = Candidate {
            revision: revision(2),
            phase: Phase::Rolling,
            reason: String::new(),
            since: 0,
            failed_on: BTreeSet::new(),
        };
        Self {
            record: UnitRecord {
                target: TargetState::Launched,
                stable: revision(1),
                candidate: Some(candidate),
                last: None,
                owners: BTreeSet::new(),
            },
            policy: Policy {
                max_unavailable: crate::unit::MaxUnavailable::Machines(max_unavailable),
                ..Policy::default()
            },
            progress: None,
            machines: (0..machines)
                .map(|at| Given {
                    id: id(at),
                    presence: Presence::Live(5),
                    cordoned: false,
                    grant: None,
                    report: up(1),
                    problem: None,
                    unknown: None,
                    leaves: None,
                })
                .collect(),
            now: 1_000,
            since: 0,
        }
    }

    fn candidate(&mut self) -> &mut Candidate {
        self.record.candidate.as_mut().expect("one is on its way")
    }

    /// Grants as the leader would, without the machine's having heard of it.
    fn grant(&mut self, at: usize, revision: u64, was_available: bool) {
        let grant = Grant {
            unit: CREATED,
            revision,
            session: 5,
            was_available,
            proved: false,
            leaves: false,
        };
        self.machines[at].grant = Some((grant, 100));
    }

    /// The machine has heard of its grant, and reports this.
    fn report(&mut self, at: usize, report: Option<UnitReport>) {
        self.machines[at].report = report.map(|report| UnitReport {
            grant: 100,
            ..report
        });
    }

    fn step(&self) -> Step {
        let machines = self.machines.iter().map(|machine| OnMachine {
            id: &machine.id,
            presence: machine.presence,
            cordoned: machine.cordoned,
            grant: machine.grant.as_ref().map(|(grant, at)| (grant, *at)),
            report: machine.report.as_ref(),
            problem: machine.problem,
            unknown: machine.unknown,
            leaves: machine.leaves.as_ref(),
        });
        step(&Situation {
            record: &self.record,
            created: CREATED,
            policy: self.policy,
            progress: self.progress.as_ref(),
            min_ready: Duration::from_secs(5),
            machines: machines.collect(),
            now: self.now,
            since: self.since,
        })
    }

    /// The leader notes that the machine has proved its grant.
    fn prove(&mut self, at: usize) {
        self.machines[at].grant.as_mut().expect("granted").0.proved = true;
    }

    /// The rollout begins now.
    fn begin(&mut self) {
        self.progress = None;
        self.progress = self.step().progress;
    }

    /// Why the candidate becomes stable.
    fn promoted(&self) -> String {
        match self.step().change {
            Some(Transition::Promote(outcome)) => outcome.reason,
            other => panic!("not promoted: {other:?}; {:?}", self.step().waits),
        }
    }

    /// The machine goes offline; a leader notes it at that time.
    fn goes_offline(&mut self, at: usize, since: u64) {
        self.machines[at].presence = Presence::Offline(Some(since));
        self.machines[at].report = None;
    }

    /// The machines that may go on now, and the revision they may go to.
    fn granted(&self) -> Vec<(usize, u64)> {
        let place = |machine: &MachineId| {
            let found = self.machines.iter().position(|it| it.id == *machine);
            found.expect("one of them")
        };
        let grants = self.step().grants;
        grants
            .iter()
            .map(|to| (place(&to.machine), to.grant.revision))
            .collect()
    }
}

#[test]
fn no_more_machines_are_granted_an_update_than_the_budget() {
    let mut fleet = Fleet::rolling(12, 3);
    assert_eq!(fleet.granted(), [(0, 2), (1, 2), (2, 2)]);
    for at in 0..3 {
        fleet.grant(at, 2, true);
    }
    assert_eq!(
        fleet.granted(),
        [],
        "three have been told, and are not back"
    );
    fleet.report(1, up(2));
    assert_eq!(fleet.granted(), [(3, 2)]);
}

#[test]
fn machine_with_unit_down_spends_budget_and_goes_first() {
    let mut fleet = Fleet::rolling(4, 1);
    fleet.machines[2].report = failed(1);
    assert_eq!(fleet.granted(), [(2, 2)]);
    fleet.grant(2, 2, false);
    assert_eq!(fleet.granted(), []);
    fleet.report(2, failed(2));
    let change = fleet.step().change;
    assert_eq!(change, None, "it was broken before");
    assert_eq!(fleet.granted(), [(0, 2)], "it is as broken as before");
    fleet.report(2, up(2));
    assert_eq!(fleet.granted(), [(0, 2)]);
}

#[test]
fn unproved_revision_is_tried_only_within_the_budget() {
    let mut fleet = Fleet::rolling(4, 2);
    for at in 0..4 {
        fleet.machines[at].report = failed(1);
    }
    assert_eq!(fleet.granted(), [(0, 2), (1, 2)]);
}

#[test]
fn the_candidate_becomes_stable_when_every_machine_is_done() {
    let mut fleet = Fleet::rolling(3, 3);
    for at in 0..3 {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    fleet.report(1, up(1));
    assert_eq!(fleet.step().change, None);
    fleet.report(1, up(2));
    let Some(Transition::Promote(outcome)) = fleet.step().change else {
        panic!("not promoted")
    };
    assert_eq!(outcome.reason, "available on 3 of 3 machines");
    assert!(matches!(
        Fleet::rolling(0, 1).step().change,
        Some(Transition::Promote(_))
    ));
}

#[test]
fn cordoned_machines_and_taken_names_hold_nothing_up() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.machines[0].cordoned = true;
    fleet.machines[1].report = None;
    fleet.machines[1].problem = Some("the name is taken by /etc/systemd/system");
    fleet.grant(2, 2, true);
    fleet.report(2, up(2));
    assert!(matches!(fleet.step().change, Some(Transition::Promote(_))));
}

/// It was there, and was updated, before somebody else's unit took its name.
#[test]
fn machine_that_cannot_have_the_unit_costs_no_budget() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.grant(1, 2, true);
    fleet.machines[1].report = None;
    fleet.machines[1].problem = Some("the name is taken");
    assert_eq!(fleet.granted(), [(0, 2)]);
    for at in [0, 2] {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    let Some(Transition::Promote(outcome)) = fleet.step().change else {
        panic!("not promoted")
    };
    let reason = "available on 2 of 3 machines; not on 00000000: the name is taken";
    assert_eq!(outcome.reason, reason);

    fleet.candidate().phase = Phase::RollingBack;
    assert_eq!(fleet.granted(), [(0, 1)]);
    for at in [0, 2] {
        fleet.grant(at, 1, true);
        fleet.report(at, up(1));
    }
    assert!(matches!(
        fleet.step().change,
        Some(Transition::EndRollback(_))
    ));
    // Also where it is the only one.
    fleet.machines.retain(|machine| machine.problem.is_some());
    fleet.candidate().phase = Phase::Rolling;
    assert_eq!(fleet.step().change, None, "no machine has proved it");
}

#[test]
fn update_that_works_nowhere_is_never_promoted() {
    let mut fleet = Fleet::rolling(2, 2);
    for at in 0..2 {
        fleet.grant(at, 2, false);
        fleet.report(at, failed(2));
    }
    assert!(matches!(fleet.step().change, Some(Transition::RollBack(_))));
    fleet.report(1, up(2));
    assert!(matches!(fleet.step().change, Some(Transition::Promote(_))));
}

#[test]
fn a_rollout_that_makes_no_progress_in_time_has_failed() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.policy.progress_deadline = Duration::from_secs(60);
    let first = fleet.step();
    let begun = Progress {
        unit: CREATED,
        revision: 2,
        done: 0,
        at: 1_000,
    };
    assert_eq!(first.progress.as_ref(), Some(&begun));
    assert_eq!(first.wake_at, Some(61_000));
    fleet.progress = Some(begun);
    fleet.grant(0, 2, true);
    fleet.now = 60_999;
    assert_eq!(fleet.step().change, None);
    fleet.now = 61_000;
    let Some(Transition::RollBack(reason)) = fleet.step().change else {
        panic!("it goes on")
    };
    insta::assert_snapshot!(reason, @"no further machine became available for 1m: waiting for 00000000: updating, 00000000: queued, 00000000: queued; 1 of 3 machines unavailable (00000000: updating), at most 1 allowed");
    // Another machine that became available starts the time again, though that is not written at
    // once.
    fleet.report(0, up(2));
    fleet.now = 1_001;
    let step = fleet.step();
    assert_eq!((step.progress, step.wake_at), (None, Some(4_000)));
    fleet.now = 4_000;
    let step = fleet.step();
    assert_eq!(step.progress.map(|it| (it.done, it.at)), Some((1, 4_000)));
    assert_eq!(step.wake_at, Some(64_000));
    // A rollout that somebody resumes has its whole time.
    fleet.now = 100_000;
    fleet.machines[0].report = up(1);
    fleet.since = 99_000;
    assert_eq!(fleet.step().change, None);
    // Whatever their clock says.
    fleet.candidate().since = 3;
    assert_eq!(fleet.step().change, None);
}

#[test]
fn machines_that_missed_an_update_take_their_turn() {
    let mut fleet = Fleet::rolling(4, 1);
    fleet.record.candidate = None;
    fleet.record.stable = revision(3);
    for at in 0..3 {
        fleet.machines[at].report = up(2).map(|report| UnitReport {
            deferred: true,
            ..report
        });
    }
    // This one goes to the stable revision by itself: nothing restarts.
    fleet.machines[3].report = up(2);
    assert_eq!(fleet.granted(), [(0, 3)]);
    fleet.grant(0, 3, true);
    assert_eq!(fleet.granted(), []);
    insta::assert_snapshot!(
        fleet.step().waits.expect("two wait"),
        @"3 machines missed revision 3 and wait for their turn; 1 of 4 machines unavailable (00000000: updating), at most 1 allowed"
    );
}

#[test]
fn a_paused_rollout_moves_nothing() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.candidate().phase = Phase::Paused;
    fleet.candidate().reason = "paused by fleetctl".to_owned();
    let expected = Step {
        waits: Some("paused: paused by fleetctl".to_owned()),
        ..Step::default()
    };
    assert_eq!(fleet.step(), expected);
}

#[test]
fn an_update_of_a_stopped_unit_is_stable_at_once() {
    for target in [TargetState::Inactive, TargetState::Loaded] {
        for phase in [Phase::Rolling, Phase::Paused] {
            let mut fleet = Fleet::rolling(3, 1);
            fleet.candidate().phase = phase;
            fleet.record.target = target;
            let reason = fleet.promoted();
            let text = format!("the unit is {target}: nothing runs that it could take down");
            assert_eq!(reason, text);
        }
        let mut fleet = Fleet::rolling(3, 1);
        fleet.candidate().phase = Phase::RollingBack;
        fleet.record.target = target;
        assert!(matches!(
            fleet.step().change,
            Some(Transition::EndRollback(_))
        ));
    }
}

#[test]
fn a_second_update_counts_who_is_still_busy_with_the_first() {
    let mut fleet = Fleet::rolling(6, 2);
    fleet.candidate().revision = revision(3);
    fleet.grant(0, 2, true);
    fleet.grant(1, 2, true);
    fleet.report(1, failed(2));
    // Machine 0 has not confirmed: it may be on its way to revision 2.
    assert_eq!(fleet.granted(), [(0, 3), (1, 3)]);
    fleet.grant(0, 3, true);
    fleet.grant(1, 3, true);
    fleet.report(1, failed(3));
    assert!(
        matches!(fleet.step().change, Some(Transition::RollBack(_))),
        "it was available before the first of the two"
    );
}

#[test]
fn a_machine_whose_state_is_unknown_costs_and_blocks_promotion() {
    let mut fleet = Fleet::rolling(4, 2);
    fleet.machines[3].unknown = Some(Unknown::Unreadable("it is damaged"));
    assert_eq!(fleet.granted(), [(0, 2)]);
    fleet.machines[2].unknown = Some(Unknown::Unreadable("it is damaged"));
    assert_eq!(fleet.granted(), []);
    insta::assert_snapshot!(fleet.step().waits.expect("two wait"), @"0 of 4 machines are done; waiting for 00000000: what it says cannot be read: it is damaged, 00000000: what it says cannot be read: it is damaged, 00000000: queued, and 1 more; 2 of 4 machines unavailable (00000000: what it says cannot be read: it is damaged, 00000000: what it says cannot be read: it is damaged), at most 2 allowed");
    fleet.machines[2].unknown = None;
    for at in 0..3 {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    assert_eq!(fleet.step().change, None);
    // It does not roll back what the others have proved, either.
    fleet.begin();
    fleet.now += 600_000;
    let Some(Transition::Pause(reason, _)) = fleet.step().change else {
        panic!("not paused")
    };
    insta::assert_snapshot!(reason, @"the state of a machine is unknown for 10m: 00000000: what it says cannot be read: it is damaged; fix it or cordon it, then resume");
    fleet.machines[3].cordoned = true;
    assert!(
        fleet
            .promoted()
            .starts_with("available on 3 of 4 machines; not on")
    );
    // A rollback ends without it.
    fleet.candidate().phase = Phase::RollingBack;
    for at in 0..3 {
        fleet.grant(at, 1, true);
        fleet.report(at, up(1));
    }
    assert!(matches!(
        fleet.step().change,
        Some(Transition::EndRollback(_))
    ));
}
