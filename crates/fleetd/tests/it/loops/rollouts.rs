//! What a leader makes of an update, with machines that do as they are told, and some that do not.

use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::Scheduling;
use fleet_core::record::{EventKind, MetadataRecord, Past, Progress, ReportChanges};
use fleet_core::rollout::{Ended, Phase};
use fleet_core::unit::TargetState;
use fleetd::store::Store as _;
use tokio::time::sleep;

use super::fleet::{service, unit};
use super::stage::{Stage, id, settle};

const WEB: &str = "web.service";
const BUDGET: usize = 3;

/// Ten machines with a unit of which three may be down.
pub(crate) async fn ten() -> Stage {
    let mut stage = Stage::of(10).await;
    stage.launch(WEB, service(1, "MaxUnavailable=3")).await;
    stage
}

async fn rolls(stage: &Stage) -> bool {
    stage.unit(WEB).await.candidate.is_some()
}

/// The machines do as they are told, until the rollout is over.
pub(crate) async fn roll(stage: &mut Stage) {
    for round in 0..50 {
        settle().await;
        let down = stage.down(WEB).await;
        assert!(down.len() <= BUDGET, "{down:?} are down at once");
        if !rolls(stage).await {
            return;
        }
        // One at a time, so that the budget is free in parts.
        match down.get(round % down.len().max(1)) {
            Some(number) => stage.obey(*number).await,
            None => stage.obey_all().await,
        }
    }
    panic!("{:#?}", stage.unit(WEB).await);
}

#[tokio::test(start_paused = true)]
async fn an_update_reaches_every_machine_within_its_budget() {
    let mut stage = ten().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    settle().await;
    assert_eq!(stage.down(WEB).await.len(), BUDGET);
    roll(&mut stage).await;
    assert_eq!(stage.revisions(WEB), [2; 10]);
    let record = stage.unit(WEB).await;
    assert_eq!(record.stable.number, 2);
    let last = record.last.expect("it ended");
    assert_eq!((last.revision, last.ended), (2, Ended::Done));
    let history = stage.read::<Past>(keys::HISTORY).await;
    let numbers: Vec<u64> = history.values().map(|past| past.revision.number).collect();
    assert_eq!(numbers, [1]);
    assert!(stage.read::<Progress>(keys::ROLLOUTS).await.is_empty());
    let mut kinds = stage.kinds().await;
    kinds.dedup();
    use EventKind::{Granted, Leading, Promoted, RolloutStarted};
    assert_eq!(kinds, [Leading, RolloutStarted, Granted, Promoted]);
    let granted = stage.events().await;
    let granted = granted.iter().filter(|event| event.kind == Granted);
    assert_eq!(granted.map(|event| event.machines.len()).sum::<usize>(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_update_of_many_machines_at_once_is_granted_in_batches() {
    let mut stage = Stage::of(250).await;
    stage.launch(WEB, service(1, "")).await;
    stage.update(WEB, service(2, "UpdateStrategy=all")).await;
    settle().await;
    let granted = stage.events().await;
    let granted: Vec<usize> = granted
        .iter()
        .filter(|event| event.kind == EventKind::Granted)
        .map(|event| event.machines.len())
        .collect();
    assert_eq!(granted, [100, 100, 50]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_granted_anything_once_it_is_paused() {
    let mut stage = ten().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    settle().await;
    stage.set_phase(WEB, Phase::Paused).await;
    stage.obey_all().await;
    settle().await;
    stage.obey_all().await;
    settle().await;
    let on_two = |stage: &Stage| stage.revisions(WEB).iter().filter(|it| **it == 2).count();
    assert_eq!(on_two(&stage), BUDGET);
    stage.set_phase(WEB, Phase::Rolling).await;
    roll(&mut stage).await;
    assert_eq!(on_two(&stage), 10);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_fails_is_taken_back_from_every_machine() {
    let mut stage = ten().await;
    for player in &mut stage.players {
        player.fails.insert(2);
    }
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    settle().await;
    // The rollback keeps to the budget too: the failed ones have spent it.
    roll(&mut stage).await;
    assert_eq!(stage.revisions(WEB), [1; 10]);
    let record = stage.unit(WEB).await;
    assert_eq!(record.stable.number, 1);
    let last = record.last.clone().expect("it ended");
    assert_eq!((last.revision, last.ended), (2, Ended::RolledBack));
    assert!(
        last.reason.contains("failed (exit-code)"),
        "{}",
        last.reason
    );
    let history = stage.read::<Past>(keys::HISTORY).await;
    let past = history.into_values().next().expect("the candidate");
    assert_eq!((past.revision.number, past.dropped), (2, Some(last.reason)));
    assert!(stage.read::<Progress>(keys::ROLLOUTS).await.is_empty());
    let kinds = stage.kinds().await;
    assert!(kinds.contains(&EventKind::RollingBack), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&EventKind::RolledBack));
    // The next one is another.
    stage.update(WEB, service(3, "MaxUnavailable=3")).await;
    roll(&mut stage).await;
    assert_eq!(stage.revisions(WEB), [3; 10]);
}

#[tokio::test(start_paused = true)]
async fn failed_update_waits_for_a_person_where_the_unit_says_so() {
    let mut stage = ten().await;
    stage.players[0].fails.insert(2);
    stage
        .update(WEB, service(2, "MaxUnavailable=3\nOnFailure=pause"))
        .await;
    settle().await;
    stage.obey_all().await;
    settle().await;
    let candidate = stage.unit(WEB).await.candidate.expect("it is kept");
    assert_eq!(candidate.phase, Phase::Paused);
    assert_eq!(candidate.failed_on.into_iter().collect::<Vec<_>>(), [id(0)]);
    let paused = stage.events().await.pop().expect("events");
    assert_eq!(
        (paused.kind, paused.machines),
        (EventKind::Paused, vec![id(0)])
    );
    // Somebody says to go on all the same: of the budget the failed machine still has its share.
    stage.set_phase(WEB, Phase::Rolling).await;
    roll(&mut stage).await;
    assert_eq!(stage.revisions(WEB), [2; 10]);
}

#[tokio::test(start_paused = true)]
async fn without_progress_an_update_is_taken_back_in_time() {
    let stage = ten().await;
    stage
        .update(WEB, service(2, "MaxUnavailable=3\nProgressDeadlineSec=60"))
        .await;
    sleep(Duration::from_secs(50)).await;
    let phase = stage.unit(WEB).await.candidate.expect("it rolls").phase;
    assert_eq!(phase, Phase::Rolling);
    sleep(Duration::from_secs(20)).await;
    let candidate = stage.unit(WEB).await.candidate.expect("it rolls back");
    assert_eq!(candidate.phase, Phase::RollingBack);
    assert!(
        candidate.reason.contains("no further machine"),
        "{}",
        candidate.reason
    );
}

#[tokio::test(start_paused = true)]
async fn machine_that_missed_an_update_gets_its_turn_later() {
    let mut stage = ten().await;
    stage.goes(4).await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    roll(&mut stage).await;
    assert_eq!(stage.revisions(WEB)[4], 1);
    stage.comes(4).await;
    settle().await;
    assert_eq!(
        stage.grant(4, WEB).await.map(|grant| grant.revision),
        Some(2)
    );
    stage.obey(4).await;
    settle().await;
    assert_eq!(stage.revisions(WEB), [2; 10]);
    // Many at once wait for each other.
    for number in 0..10 {
        stage.goes(number).await;
    }
    stage.update(WEB, service(3, "MaxUnavailable=3")).await;
    settle().await;
    assert_eq!(
        stage.unit(WEB).await.stable.number,
        3,
        "nobody is left to wait for"
    );
    for number in 0..10 {
        stage.comes(number).await;
    }
    for _ in 0..10 {
        settle().await;
        let down = stage.down(WEB).await;
        assert!(down.len() <= BUDGET, "{down:?}");
        stage.obey_all().await;
    }
    assert_eq!(stage.revisions(WEB), [3; 10]);
}

#[tokio::test(start_paused = true)]
async fn machine_offline_after_its_grant_spends_the_budget() {
    let mut stage = ten().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    settle().await;
    let granted = stage.down(WEB).await;
    for number in granted {
        stage.goes(number).await;
    }
    for _ in 0..3 {
        settle().await;
        stage.obey_all().await;
    }
    assert_eq!(stage.revisions(WEB), [1; 10], "no other is granted it");
    assert!(stage.unit(WEB).await.candidate.is_some());
    // What they were granted went with their session.
    for number in 0..10 {
        if stage.players[number].lease.is_none() {
            stage.comes(number).await;
            stage.obey(number).await;
            assert_eq!(
                stage.revisions(WEB)[number],
                1,
                "a grant to an earlier session"
            );
        }
    }
    roll(&mut stage).await;
    assert_eq!(stage.revisions(WEB), [2; 10]);
}

#[tokio::test(start_paused = true)]
async fn cordoned_or_drained_machine_gets_no_grant_and_delays_none() {
    let mut stage = ten().await;
    stage.schedule(1, Scheduling::Cordoned).await;
    stage.schedule(2, Scheduling::Drained).await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    roll(&mut stage).await;
    assert_eq!(stage.grant(1, WEB).await, None);
    assert_eq!(stage.grant(2, WEB).await, None);
    assert_eq!(stage.unit(WEB).await.stable.number, 2);
    stage.obey_all().await;
    settle().await;
    assert_eq!(
        stage.grant(1, WEB).await,
        None,
        "not after the promotion either"
    );
    stage.schedule(1, Scheduling::Normal).await;
    settle().await;
    assert_eq!(
        stage.grant(1, WEB).await.map(|grant| grant.revision),
        Some(2)
    );
}

#[tokio::test(start_paused = true)]
async fn unit_that_tolerates_a_cordon_is_granted_there() {
    let mut stage = ten().await;
    stage.schedule(1, Scheduling::Cordoned).await;
    stage.schedule(2, Scheduling::Drained).await;
    let fleet = "MaxUnavailable=3\nTolerates=cordon";
    stage.update(WEB, service(2, fleet)).await;
    roll(&mut stage).await;
    let revisions = stage.revisions(WEB);
    assert_eq!((revisions[1], revisions[3]), (2, 2), "{revisions:?}");
    assert_eq!(stage.grant(2, WEB).await, None);
}

#[tokio::test(start_paused = true)]
async fn only_machines_where_the_update_belongs_are_asked() {
    let mut stage = ten().await;
    let granted = async |stage: &Stage, revision: u64| {
        let mut granted = Vec::new();
        for number in 0..10 {
            let grant = stage.grant(number, WEB).await;
            granted.extend(grant.filter(|it| it.revision == revision).map(|_| number));
        }
        granted
    };
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    roll(&mut stage).await;
    assert_eq!(stage.revisions(WEB), [2; 10]);
    let fleet = "MaxUnavailable=3\nMachineMetadata=n=0\nMachineMetadata=n=1";
    stage.update(WEB, service(3, fleet)).await;
    settle().await;
    assert_eq!(granted(&stage, 3).await, [0, 1]);
    // What is set at run time counts.
    let overlay = MetadataRecord {
        set: [("n".to_owned(), Some("1".to_owned()))].into(),
        ..MetadataRecord::default()
    };
    stage.put(keys::metadata(&id(5)), &overlay).await;
    settle().await;
    assert_eq!(granted(&stage, 3).await, [0, 1, 5]);
}

#[tokio::test(start_paused = true)]
async fn values_that_nobody_can_read_hold_nothing_else_up() {
    let mut stage = ten().await;
    let bad = "bad.service";
    stage.launch(bad, service(1, "")).await;
    for key in [
        keys::unit(&unit(bad)),
        keys::unit(&unit("other.service")),
        keys::rollout(&unit(WEB)),
        keys::grant(&id(1), &unit(WEB)),
        keys::grant(&id(1), &unit("gone.service")),
        keys::known(&id(2)),
        keys::known(&id(77)),
        keys::metadata(&id(3)),
        keys::report(&id(4)),
        keys::machine(&id(5)),
        keys::history(&unit(WEB), 0),
        keys::event(0, 0),
        "units/../x".to_owned(),
        "machines/x".to_owned(),
        "grants/x/y/z".to_owned(),
        "rollouts/".to_owned(),
        "known/".to_owned(),
    ] {
        stage.put_bytes(key, b"{\"format\":1,".to_vec()).await;
    }
    stage.lead();
    settle().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    for _ in 0..20 {
        settle().await;
        for number in [0, 1, 2, 6, 7, 8, 9] {
            stage.obey(number).await;
        }
    }
    // The machines whose values are bad are left as they are. While their state is unknown nothing
    // is promoted.
    assert_eq!(stage.unit(WEB).await.stable.number, 1);
    for number in [4, 5] {
        stage.schedule(number, Scheduling::Cordoned).await;
    }
    settle().await;
    assert_eq!(stage.unit(WEB).await.stable.number, 2);
    assert_eq!(stage.revisions(WEB), [2, 2, 2, 1, 1, 1, 2, 2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_with_nothing_to_do_writes_nothing() {
    let mut stage = ten().await;
    // A rollout that is paused, one that waits for no machine, a machine that keeps an old
    // revision, one that is offline.
    stage.goes(9).await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    roll(&mut stage).await;
    stage.schedule(9, Scheduling::Cordoned).await;
    stage.comes(9).await;
    stage.goes(8).await;
    stage.update(WEB, service(3, "MaxUnavailable=3")).await;
    stage.set_phase(WEB, Phase::Paused).await;
    let rollout = "waiting.service";
    stage
        .launch(rollout, service(1, "ProgressDeadlineSec=infinity"))
        .await;
    stage
        .update(rollout, service(2, "ProgressDeadlineSec=infinity"))
        .await;
    settle().await;
    let revision = async |stage: &Stage| {
        stage
            .store
            .list(&[keys::LEADER])
            .await
            .expect("lists")
            .revision
    };
    let before = revision(&stage).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(revision(&stage).await, before);
    // Nor for what machines say that concerns no rollout.
    let reports = stage.read::<ReportChanges>(keys::REPORTS).await;
    assert_eq!(reports.len(), 9);
    let bare = "x.service";
    let mut record = stage.unit(WEB).await;
    record.candidate = None;
    record.target = TargetState::Inactive;
    stage.put(keys::unit(&unit(bare)), &record).await;
    let written = revision(&stage).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(revision(&stage).await, written);
}
