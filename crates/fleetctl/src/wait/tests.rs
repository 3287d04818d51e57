use super::*;
use fleet_core::api::{UnitCandidate, UnitReport};

fn on_machine(active: &str, ready: bool, revision: u64, since: u64) -> UnitOnMachine {
    UnitOnMachine {
        placed: true,
        report: Some(UnitReport {
            load: "loaded".into(),
            active: active.into(),
            sub: String::new(),
            revision,
            hash: String::new(),
            since,
            restarts: 0,
            result: String::new(),
            launched: true,
            ready,
            available: ready,
            ..UnitReport::default()
        }),
        ..UnitOnMachine::default()
    }
}

fn status(machines: Vec<UnitOnMachine>) -> UnitStatus {
    UnitStatus {
        desired_state: "launched".into(),
        revision: 2,
        machines,
        ..UnitStatus::default()
    }
}

fn verdict(machines: Vec<UnitOnMachine>) -> Verdict {
    judge(Goal::Ready, &status(machines), None).verdict
}

#[test]
fn a_unit_is_ready_when_every_machine_that_has_it_is() {
    let elsewhere = UnitOnMachine::default();
    let ready = on_machine("active", true, 2, 0);
    assert_eq!(
        judge(
            Goal::Ready,
            &status(vec![ready.clone(), elsewhere, ready]),
            None
        ),
        Progress {
            there: 2,
            placed: 2,
            verdict: Verdict::There
        }
    );
}

#[test]
fn a_machine_on_an_older_revision_is_not_ready() {
    assert_eq!(
        verdict(vec![on_machine("active", true, 1, 0)]),
        Verdict::Moving
    );
}

#[test]
fn a_machine_without_a_report_is_still_on_its_way() {
    let silent = UnitOnMachine {
        placed: true,
        ..UnitOnMachine::default()
    };
    assert_eq!(
        verdict(vec![on_machine("failed", false, 2, 0), silent]),
        Verdict::Moving
    );
}

#[test]
fn unit_is_stuck_when_all_machines_not_ready_have_failed() {
    let ready = on_machine("active", true, 2, 0);
    let failed = on_machine("failed", false, 2, 0);
    let mut refused = UnitOnMachine {
        placed: true,
        ..UnitOnMachine::default()
    };
    refused.problem = Some("not fleet's own".into());
    assert_eq!(verdict(vec![ready, failed, refused]), Verdict::Stuck);
}

#[test]
fn a_failure_from_before_the_start_does_not_end_the_wait() {
    let before = status(vec![on_machine("failed", false, 2, 7)]);
    assert_eq!(
        judge(Goal::Ready, &before, Some(&before)).verdict,
        Verdict::Moving
    );
    let again = status(vec![on_machine("failed", false, 2, 8)]);
    assert_eq!(
        judge(Goal::Ready, &again, Some(&before)).verdict,
        Verdict::Stuck
    );
}

#[test]
fn a_oneshot_that_is_only_loaded_has_to_run() {
    // systemd forgets a oneshot that ran: it is dead, with no time of a change.
    let ran = on_machine("inactive", true, 2, 0);
    let mut loaded = ran.clone();
    loaded.report.as_mut().expect("a report").launched = false;
    assert_eq!(verdict(vec![loaded]), Verdict::Moving);
    assert_eq!(verdict(vec![ran]), Verdict::There);
}

#[test]
fn wait_during_a_rollout_is_for_the_candidate() {
    let mut rolling = status(vec![on_machine("active", true, 2, 0)]);
    rolling.candidate = Some(UnitCandidate {
        revision: 3,
        phase: Phase::Rolling.as_str().to_owned(),
        ..UnitCandidate::default()
    });
    assert_eq!(judge(Goal::Ready, &rolling, None).verdict, Verdict::Moving);
    assert_eq!(went_back(&rolling, None), None);
    rolling.machines = vec![on_machine("active", true, 3, 0)];
    assert_eq!(judge(Goal::Ready, &rolling, None).verdict, Verdict::There);
    let mut unsteady = rolling.clone();
    unsteady.machines[0]
        .report
        .as_mut()
        .expect("a report")
        .available = false;
    assert_eq!(judge(Goal::Ready, &unsteady, None).verdict, Verdict::Moving);
    // A cordoned machine keeps its revision, and waiting never includes it.
    let mut cordoned = on_machine("active", true, 2, 0);
    cordoned.deferred = true;
    rolling.machines.push(cordoned);
    assert_eq!(judge(Goal::Ready, &rolling, None).verdict, Verdict::There);
}

#[test]
fn rollback_ends_the_wait_even_after_it_is_done() {
    let mut back = status(Vec::new());
    back.candidate = Some(UnitCandidate {
        revision: 3,
        phase: Phase::RollingBack.as_str().to_owned(),
        reason: "it failed".to_owned(),
        ..UnitCandidate::default()
    });
    let going = Some("revision 3 is being rolled back: it failed".to_owned());
    assert_eq!(went_back(&back, None), going);
    let last = LastRollout {
        revision: 3,
        ended: Ended::RolledBack.as_str().to_owned(),
        reason: "it failed".to_owned(),
        at: 7,
    };
    back.candidate = None;
    back.last = Some(last.clone());
    let gone = Some("revision 3 was rolled back: it failed".to_owned());
    assert_eq!(went_back(&back, None), gone);
    assert_eq!(
        went_back(&back, Some(&last)),
        None,
        "it was before this start"
    );
}

#[test]
fn unit_active_before_the_start_is_ready() {
    let before = status(vec![on_machine("active", true, 2, 7)]);
    assert_eq!(
        judge(Goal::Ready, &before, Some(&before)).verdict,
        Verdict::There
    );
}

#[test]
fn unit_without_a_machine_has_nothing_to_wait_for() {
    assert_eq!(verdict(vec![UnitOnMachine::default()]), Verdict::There);
}

#[test]
fn unit_that_is_not_started_yet_is_waited_for() {
    let mut loaded = status(vec![]);
    loaded.desired_state = "loaded".into();
    assert_eq!(judge(Goal::Ready, &loaded, None).verdict, Verdict::Moving);
}

#[test]
fn active_needs_every_machine_and_at_least_one() {
    let verdict = |machines| judge(Goal::Active, &status(machines), None).verdict;
    let slow = on_machine("active", false, 2, 0);
    assert_eq!(verdict(vec![slow.clone()]), Verdict::There);
    let done = on_machine("inactive", true, 2, 0);
    assert_eq!(verdict(vec![slow, done]), Verdict::Moving);
    assert_eq!(verdict(vec![]), Verdict::Moving);
}

#[test]
fn inactive_unit_with_a_reason_is_stuck_at_once() {
    let mut down = on_machine("inactive", false, 2, 0);
    assert_eq!(verdict(vec![down.clone()]), Verdict::Moving);
    if let Some(report) = &mut down.report {
        report.failed = Some("it was stopped by hand".into());
    }
    assert_eq!(verdict(vec![down]), Verdict::Stuck);
}

#[test]
fn no_machine_has_reasons_only_if_machines_are_online() {
    assert_eq!(no_machine(&status(vec![])), None);
    let elsewhere = UnitOnMachine {
        reason: "it needs role=web".into(),
        ..UnitOnMachine::default()
    };
    let told = no_machine(&status(vec![elsewhere.clone(), elsewhere.clone()]));
    let text = "it runs on no machine: it needs role=web (2 machines)";
    assert_eq!(told.as_deref(), Some(text));
    let placed = on_machine("active", true, 2, 0);
    assert_eq!(no_machine(&status(vec![elsewhere, placed])), None);
}
