//! Rollouts of many units at once: decided in few commits, and none in the way of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleet_core::keys;
use fleet_core::record::{self, Candidate, UnitRecord};
use fleet_core::rollout::Phase;
use fleet_core::unit::TargetState;
use fleetd::store::Write;

use super::fleet::{service, unit};
use super::stage::{Stage, revision, settle};
use super::weather::Weather;

const UNITS: usize = 200;

fn names() -> impl Iterator<Item = String> {
    (0..UNITS).map(|number| format!("u{number:03}.service"))
}

/// Three machines with all units, and a leader whose commits are counted; those of one key are
/// refused.
async fn crowd(refused: Option<String>) -> (Stage, Arc<AtomicUsize>) {
    let mut stage = Stage::without_a_leader(3).await;
    for name in names() {
        let record = UnitRecord {
            target: TargetState::Launched,
            stable: revision(1, service(1, "MaxUnavailable=1")),
            candidate: None,
            last: None,
            owners: Default::default(),
        };
        stage.put(keys::unit(&unit(&name)), &record).await;
    }
    stage.obey_all().await;
    let commits = Arc::new(AtomicUsize::new(0));
    let (way, count) = (Weather::over(stage.store.clone()), commits.clone());
    way.tell(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    if let Some(key) = refused {
        way.deny(key);
    }
    stage.lead_over(Arc::new(way));
    settle().await;
    (stage, commits)
}

/// Somebody updates all of them, in one moment.
async fn update_all(stage: &Stage) {
    for chunk in names().collect::<Vec<_>>().chunks(100) {
        let mut writes = Vec::new();
        for name in chunk {
            let mut record = stage.unit(name).await;
            record.candidate = Some(Candidate {
                revision: revision(2, service(2, "MaxUnavailable=1")),
                phase: Phase::Rolling,
                reason: String::new(),
                since: stage.now(),
                failed_on: Default::default(),
            });
            writes.push(Write::Put {
                key: keys::unit(&unit(name)),
                value: record::encode(&record),
                lease: None,
            });
        }
        stage.write(writes).await;
    }
}

async fn rolling(stage: &Stage) -> Vec<String> {
    let all = stage.read::<UnitRecord>(keys::UNITS).await.into_iter();
    let rolling = all.filter(|(_, record)| record.candidate.is_some());
    rolling.map(|(key, _)| key).collect()
}

/// The machines do as they are told, until nothing is left to roll out but this.
async fn roll_all_but(stage: &mut Stage, left: &[String]) {
    for _ in 0..20 {
        settle().await;
        for name in names() {
            let down = stage.down(&name).await;
            assert!(down.len() <= 1, "{name}: {down:?} are down at once");
        }
        if rolling(stage).await == left {
            return;
        }
        stage.obey_all().await;
    }
    panic!("{:?} do not end", rolling(stage).await);
}

#[tokio::test(start_paused = true)]
async fn updates_of_many_units_are_granted_and_ended_in_few_commits() {
    let (mut stage, commits) = crowd(None).await;
    update_all(&stage).await;
    commits.store(0, Ordering::Relaxed);
    settle().await;
    let begun = commits.swap(0, Ordering::Relaxed);
    assert_eq!(stage.keys(keys::GRANTS).await.len(), UNITS);
    // Four writes each: that it began, one grant, that it was granted, and how far it is.
    assert_eq!(begun, UNITS.div_ceil(32));
    roll_all_but(&mut stage, &[]).await;
    let rest = commits.load(Ordering::Relaxed);
    assert!(rest <= 4 * UNITS.div_ceil(20), "{rest}");
    for name in names() {
        assert_eq!(stage.revisions(&name), [2; 3], "{name}");
        let kept = stage.keys(&keys::history_of(&unit(&name))).await;
        assert_eq!(kept, [keys::history(&unit(&name), 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn rollout_that_the_registry_refuses_delays_no_other() {
    let stuck = unit("u050.service");
    let (mut stage, _) = crowd(Some(keys::rollout(&stuck))).await;
    update_all(&stage).await;
    roll_all_but(&mut stage, &[keys::unit(&stuck)]).await;
    assert_eq!(stage.revisions(stuck.as_str()), [1; 3]);
    assert_eq!(stage.revisions("u199.service"), [2; 3]);
}

#[tokio::test(start_paused = true)]
async fn unit_changed_during_a_batch_costs_only_another_look() {
    let (mut stage, _) = crowd(None).await;
    update_all(&stage).await;
    for number in 0..20 {
        tokio::task::yield_now().await;
        let name = format!("u{number:03}.service");
        stage.set_phase(&name, Phase::Paused).await;
    }
    let paused: Vec<String> = names().take(20).map(|it| keys::unit(&unit(&it))).collect();
    roll_all_but(&mut stage, &paused).await;
}
