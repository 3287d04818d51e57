//! What an update may cost, and what it takes to promote it.

use super::*;

const LOST: &str = "00000000 went offline when it took revision 2";

#[test]
fn a_machine_offline_since_its_grant_spends_the_budget() {
    let mut fleet = Fleet::rolling(10, 1);
    fleet.grant(0, 2, true);
    fleet.goes_offline(0, 1_000);
    assert_eq!(fleet.granted(), []);
    // Its own grant is void by then: it came back with another session.
    fleet.machines[0].presence = Presence::Live(6);
    fleet.machines[0].report = up(1);
    assert_eq!(fleet.granted(), [(0, 2)]);
}

#[test]
fn proved_machine_that_went_offline_spends_the_budget() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.grant(0, 2, true);
    fleet.report(0, up(2));
    fleet.prove(0);
    assert_eq!(fleet.granted(), [(1, 2)]);
    fleet.goes_offline(0, 1_000);
    assert_eq!(fleet.granted(), []);
}

#[test]
fn a_machine_offline_before_its_grant_costs_nothing() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.goes_offline(0, 500);
    // Granted what it was granted before.
    fleet.grant(1, 1, true);
    fleet.goes_offline(1, 500);
    assert_eq!(fleet.granted(), [(2, 2)]);
    fleet.grant(2, 2, true);
    fleet.report(2, up(2));
    assert_eq!(fleet.promoted(), "available on 1 of 1 machines");
}

#[test]
fn a_lost_machine_counts_until_a_cordon() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.grant(0, 2, true);
    fleet.goes_offline(0, 1_000);
    fleet.machines[0].cordoned = true;
    assert_eq!(fleet.granted(), [(1, 2)]);
}

#[test]
fn a_lost_machine_fails_the_update_at_the_deadline() {
    let mut fleet = Fleet::rolling(2, 1);
    fleet.begin();
    fleet.grant(0, 2, true);
    fleet.goes_offline(0, 31_000);
    fleet.now = 600_999;
    assert_eq!(fleet.step().change, None);
    fleet.now = 601_000;
    let Some(Transition::RollBack(reason)) = fleet.step().change else {
        panic!("it goes on")
    };
    assert!(reason.starts_with(LOST), "{reason}");
}

#[test]
fn a_lost_machine_alone_is_no_proof() {
    let mut fleet = Fleet::rolling(1, 1);
    fleet.begin();
    fleet.grant(0, 2, true);
    fleet.goes_offline(0, 31_000);
    assert_eq!(fleet.step().change, None);
    fleet.now = 601_000;
    let Some(Transition::RollBack(reason)) = fleet.step().change else {
        panic!("it goes on")
    };
    assert!(reason.starts_with(LOST), "{reason}");
}

#[test]
fn lost_machine_delays_a_proved_update_until_the_deadline() {
    let mut fleet = Fleet::rolling(3, 2);
    for at in 0..3 {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    fleet.goes_offline(0, 1_000);
    fleet.begin();
    assert_eq!(fleet.step().change, None);
    assert_eq!(fleet.step().wake_at, Some(601_000));
    fleet.now = 601_000;
    assert_eq!(fleet.promoted(), "available on 2 of 2 machines");
}

#[test]
fn more_machines_lost_than_the_budget_fail_the_update() {
    let mut fleet = Fleet::rolling(5, 1);
    for at in 0..2 {
        fleet.grant(at, 2, true);
        fleet.goes_offline(at, 1_000);
    }
    let Some(Transition::RollBack(reason)) = fleet.step().change else {
        panic!("it goes on")
    };
    insta::assert_snapshot!(reason, @"00000000, 00000000 went offline when they took revision 2; at most 1 allowed");
    // What they took is not given to others on the way back, either.
    fleet.candidate().phase = Phase::RollingBack;
    fleet.grant(2, 2, true);
    fleet.report(2, up(2));
    assert_eq!(fleet.granted(), []);
}

#[test]
fn a_restart_of_fleetd_in_mid_soak_promotes_nothing() {
    let mut fleet = Fleet::rolling(1, 1);
    fleet.grant(0, 2, true);
    fleet.machines[0].presence = Presence::Live(6);
    fleet.machines[0].unknown = Some(Unknown::Untold("fleetd has just started there"));
    assert_eq!(fleet.step().change, None);
}

#[test]
fn machines_that_are_awaited_cost_and_block_promotion() {
    let mut fleet = Fleet::rolling(3, 1);
    for at in 0..2 {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    fleet.machines[2].presence = Presence::Awaited(30_000);
    fleet.begin();
    let step = fleet.step();
    assert_eq!((step.change, step.wake_at), (None, Some(30_000)));
    fleet.machines[1].report = up(1);
    fleet.machines[1].grant = None;
    assert_eq!(fleet.granted(), []);
}

#[test]
fn a_granted_machine_that_a_new_leader_awaits_is_named_as_lost() {
    let mut fleet = Fleet::rolling(2, 1);
    fleet.grant(0, 2, true);
    fleet.machines[0].presence = Presence::Awaited(30_000_000);
    fleet.begin();
    fleet.now += 10_000_000;
    let Some(Transition::RollBack(why)) = fleet.step().change else {
        panic!("{:?}", fleet.step());
    };
    assert!(
        why.contains("went offline when it took revision 2"),
        "{why}"
    );
}

#[test]
fn a_fleet_that_is_cordoned_proves_nothing() {
    let mut fleet = Fleet::rolling(2, 1);
    for machine in &mut fleet.machines {
        machine.cordoned = true;
    }
    fleet.begin();
    fleet.now += 10_000_000;
    let step = fleet.step();
    assert_eq!((step.change, step.grants), (None, vec![]));
    insta::assert_snapshot!(step.waits.expect("it waits"), @"no machine has proved revision 2: every machine where it belongs is cordoned");
    // Nor does one that fails beside one that runs the stable revision.
    fleet.machines[1].cordoned = false;
    fleet.grant(1, 2, false);
    fleet.report(1, failed(2));
    assert!(matches!(fleet.step().change, Some(Transition::RollBack(_))));
}

#[test]
fn cordoned_machine_with_broken_unit_costs_nothing() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.machines[2].cordoned = true;
    fleet.machines[2].report = failed(1);
    assert_eq!(fleet.granted(), [(0, 2)]);
    for at in 0..2 {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    insta::assert_snapshot!(fleet.promoted(), @"available on 2 of 3 machines; not on 00000000: cordoned");
}

#[test]
fn a_machine_as_broken_as_before_blocks_no_other() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.machines[2].report = failed(1);
    assert_eq!(fleet.granted(), [(2, 2)]);
    fleet.grant(2, 2, false);
    fleet.report(2, failed(2));
    assert_eq!(fleet.granted(), [(0, 2)]);
    for at in 0..2 {
        fleet.grant(at, 2, true);
        fleet.report(at, up(2));
    }
    insta::assert_snapshot!(fleet.promoted(), @"available on 2 of 3 machines; not on 00000000: failed (exit-code)");
}

#[test]
fn a_waiting_rollout_names_the_machine_that_is_the_cause() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.grant(2, 2, true);
    fleet.report(2, up(2));
    fleet.prove(2);
    fleet.machines[2].report.as_mut().expect("one").settled = true;
    let broken = failed(2).map(|report| UnitReport {
        settled: true,
        ..report
    });
    fleet.report(2, broken);
    let step = fleet.step();
    assert_eq!((step.change, step.grants), (None, vec![]));
    insta::assert_snapshot!(step.waits.expect("it waits"), @"1 of 3 machines are done; waiting for 00000000: queued, 00000000: queued; 1 of 3 machines unavailable (00000000: failed (exit-code)), at most 1 allowed");
}

#[test]
fn proved_machine_rolls_nothing_back_after_a_reboot() {
    let mut fleet = Fleet::rolling(3, 1);
    fleet.grant(0, 2, true);
    fleet.report(0, up(2));
    let proofs = fleet.step().proofs;
    assert_eq!(proofs.len(), 1);
    assert!(proofs[0].grant.proved);
    fleet.prove(0);
    assert_eq!(fleet.step().proofs, []);
    fleet.machines[0].presence = Presence::Live(6);
    fleet.machines[0].report = failed(2);
    fleet.begin();
    assert_eq!(fleet.step().change, None);
    // It is down, and the others wait; at the deadline for a person.
    assert_eq!(fleet.granted(), []);
    fleet.grant(1, 2, true);
    fleet.report(1, up(2));
    fleet.now += 600_000;
    fleet.progress.as_mut().expect("begun").done = 2;
    assert!(matches!(fleet.step().change, Some(Transition::Pause(..))));
    // In the session of its grant its failure is the update's.
    fleet.machines[0].presence = Presence::Live(5);
    assert!(matches!(fleet.step().change, Some(Transition::RollBack(_))));
}

#[test]
fn grant_of_a_revoked_update_does_not_count() {
    let mut fleet = Fleet::rolling(2, 1);
    // Revision 2 was rolled back while this machine was offline; its unit broke since.
    fleet.candidate().revision = revision(3);
    fleet.grant(0, 2, true);
    fleet.machines[0].presence = Presence::Live(6);
    fleet.machines[0].report = failed(1);
    let grants = fleet.step().grants;
    assert_eq!(grants[0].machine, id(0));
    assert!(!grants[0].grant.was_available);
}

#[test]
fn machine_on_its_way_back_was_up_before_the_next_update() {
    let mut fleet = Fleet::rolling(3, 1);
    // A rollback has just restarted it, when another update is submitted.
    fleet.grant(0, 1, true);
    let starting = up(1).map(|report| UnitReport {
        ready: false,
        available: false,
        ..report
    });
    fleet.report(0, starting);
    let first = fleet.step().grants;
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(
        first[0].grant.was_available,
        "the update before took it down"
    );
    fleet.grant(0, 2, true);
    fleet.report(0, failed(2));
    let change = fleet.step().change;
    assert!(
        matches!(change, Some(Transition::RollBack(_))),
        "{change:?}"
    );
}

#[test]
fn a_oneshot_in_the_middle_of_its_run_outlasts_the_deadline() {
    let mut fleet = Fleet::rolling(1, 1);
    let run = |section: &str| crate::unit::Content::from(section);
    fleet.begin();
    fleet.grant(0, 2, true);
    fleet.report(0, up(2));
    let report = fleet.machines[0].report.as_mut().expect("one");
    (report.ready, report.available) = (false, false);
    report.active = "activating".to_owned();
    report.sub = "start".to_owned();
    fleet.now += 700_000;
    fleet.candidate().revision.content = run("[Service]\nType=oneshot\nExecStart=/x\n");
    let step = fleet.step();
    assert_eq!((step.change, step.wake_at), (None, None));
    fleet.candidate().revision.content = run("[Service]\nType=notify\nExecStart=/x\n");
    assert!(matches!(fleet.step().change, Some(Transition::RollBack(_))));
}
