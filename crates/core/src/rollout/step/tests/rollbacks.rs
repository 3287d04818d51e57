//! Rollouts that fail.

use super::*;

#[test]
fn a_failure_rolls_back_and_says_where_and_why() {
    let mut fleet = Fleet::rolling(4, 1);
    fleet.grant(0, 2, true);
    fleet.report(0, failed(2));
    let change = fleet.step().change;
    let text = "it failed on 00000000: failed (exit-code)";
    assert_eq!(change, Some(Transition::RollBack(text.to_owned())));
    fleet.policy.on_failure = OnFailure::Pause;
    let change = fleet.step().change;
    assert_eq!(
        change,
        Some(Transition::Pause(text.to_owned(), vec![id(0)]))
    );
    // A person resumed it: the same failure does not stop it again, another does.
    fleet.candidate().failed_on.insert(id(0));
    assert_eq!(fleet.step().change, None);
    fleet.grant(1, 2, true);
    fleet.report(1, failed(2));
    assert!(matches!(fleet.step().change, Some(Transition::Pause(..))));
}

#[test]
fn a_rollback_gives_the_stable_revision_back_within_the_budget() {
    let mut fleet = Fleet::rolling(6, 2);
    for at in 0..4 {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    fleet.report(3, failed(2));
    fleet.candidate().phase = Phase::RollingBack;
    fleet.candidate().reason = "it failed".to_owned();
    assert_eq!(
        fleet.granted(),
        [(3, 1), (0, 1)],
        "the one that is down is free"
    );
    for at in 0..4 {
        fleet.grant(at, 1, true);
        fleet.report(at, up(1));
    }
    let outcome = Outcome {
        revision: 2,
        ended: Ended::RolledBack,
        reason: "it failed".to_owned(),
        at: 1_000,
    };
    assert_eq!(fleet.step().change, Some(Transition::EndRollback(outcome)));
}

#[test]
fn rollback_revokes_a_grant_that_was_not_acted_on() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.grant(0, 2, true);
    fleet.candidate().phase = Phase::RollingBack;
    assert_eq!(fleet.granted(), [(0, 1)]);
    fleet.grant(0, 1, true);
    // However long that takes: it may have acted on the grant before.
    fleet.now = 10_000_000;
    assert_eq!(fleet.step().change, None);
    fleet.report(0, up(1));
    assert!(matches!(
        fleet.step().change,
        Some(Transition::EndRollback(_))
    ));
}

#[test]
fn a_rollback_is_never_rolled_back() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.candidate().phase = Phase::RollingBack;
    fleet.grant(0, 1, true);
    fleet.report(0, failed(1));
    assert!(matches!(
        fleet.step().change,
        Some(Transition::EndRollback(_))
    ));
}
