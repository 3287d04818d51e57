//! A rollout goes on, within its budget, whoever leads and whatever becomes of a commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::record::Grant;
use fleet_core::rollout::Phase;
use fleetd::store::Store as _;
use tokio::time::sleep;

use super::fleet::service;
use super::mail::{Loss, Mail};
use super::rollouts::{roll, ten};
use super::stage::settle;
use super::weather::{Sky, Weather};

const WEB: &str = "web.service";

#[tokio::test(start_paused = true)]
async fn a_rollout_goes_on_when_another_leads_at_every_step() {
    for fails in [false, true] {
        let mut stage = ten().await;
        if fails {
            stage.players[7].fails.insert(2);
        }
        stage.update(WEB, service(2, "MaxUnavailable=3")).await;
        for step in 0..60 {
            // Each is ended at another point of its work.
            stage.lead();
            sleep(Duration::from_millis(4000 + 37 * step)).await;
            settle().await;
            let down = stage.down(WEB).await;
            assert!(down.len() <= 3, "{down:?} at {step}");
            if let Some(first) = down.first() {
                stage.obey(*first).await;
            }
        }
        let expected = if fails { 1 } else { 2 };
        assert_eq!(stage.revisions(WEB), [expected; 10]);
        let record = stage.unit(WEB).await;
        assert_eq!((record.stable.number, record.candidate), (expected, None));
    }
}

#[tokio::test(start_paused = true)]
async fn late_or_unanswered_commit_keeps_the_budget() {
    let loses: [fn(usize) -> Option<Loss>; 4] = [
        |_| Some(Loss::Answer),
        |count| (count % 2 == 0).then_some(Loss::Answer),
        |count| (count % 2 == 0).then_some(Loss::Late(Duration::from_millis(1500))),
        |count| (count % 3 < 2).then_some(Loss::Late(Duration::from_secs(8))),
    ];
    for (which, loses) in loses.into_iter().enumerate() {
        let mut stage = ten().await;
        let mail = Mail::to(&stage.store, loses);
        stage.lead_over(Arc::new(mail.clone()));
        settle().await;
        stage.update(WEB, service(2, "MaxUnavailable=3")).await;
        for step in 0..400_u64 {
            sleep(Duration::from_millis(900)).await;
            let down = stage.down(WEB).await;
            assert!(down.len() <= 3, "{down:?} at {step} of {which}");
            // A unit goes down by itself, so that what is decided next is not what was decided
            // before.
            let number = usize::try_from(step % 10).expect("small");
            stage.obey(number).await;
        }
        assert_eq!(stage.revisions(WEB), [2; 10], "{which}");
        assert!(mail.seen.load(Ordering::Relaxed) > 2);
        assert_eq!(mail.unguarded.load(Ordering::Relaxed), 0);
    }
}

/// The fence itself: what was decided first arrives when another leader has decided, on other
/// grounds.
#[tokio::test(start_paused = true)]
async fn a_commit_that_comes_after_another_decision_is_refused() {
    let mut stage = ten().await;
    let mail = Mail::to(&stage.store, |count| {
        (count == 0).then_some(Loss::Late(Duration::from_secs(5)))
    });
    stage.lead_over(Arc::new(mail.clone()));
    settle().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    // The first three are granted it by the commit that is late; one of them goes meanwhile, so
    // that others are next.
    sleep(Duration::from_millis(1)).await;
    stage.goes(0).await;
    sleep(Duration::from_secs(3)).await;
    let down = stage.down(WEB).await;
    assert_eq!(down, [1, 2, 3]);
    settle().await;
    assert_eq!(mail.refused.load(Ordering::Relaxed), 1);
    assert_eq!(stage.down(WEB).await, down);
}

#[tokio::test(start_paused = true)]
async fn grants_of_a_leader_that_lost_its_claim_are_refused() {
    let mut stage = ten().await;
    let late = |count| (count == 0).then_some(Loss::Late(Duration::from_secs(30)));
    let mail = Mail::to(&stage.store, late);
    stage.lead_over(Arc::new(mail.clone()));
    settle().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(mail.seen.load(Ordering::Relaxed), 1);
    // It is killed while its commit is on the way; another finishes the rollout.
    stage.lead();
    settle().await;
    stage.set_phase(WEB, Phase::Paused).await;
    let grants = stage.read::<Grant>(keys::GRANTS).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(mail.refused.load(Ordering::Relaxed), 1);
    assert_eq!(stage.read::<Grant>(keys::GRANTS).await, grants);
}

/// The leader's commits take half a second each: some are on their way when somebody pauses.
#[tokio::test(start_paused = true)]
async fn no_grant_lands_after_a_pause_was_acknowledged() {
    for millis in (0..3000).step_by(100) {
        let mut stage = ten().await;
        let weather = Weather::over(stage.store.clone());
        stage.lead_over(Arc::new(weather.clone()));
        settle().await;
        weather.turn(Sky::Slow);
        stage.update(WEB, service(2, "MaxUnavailable=100%")).await;
        sleep(Duration::from_millis(millis)).await;
        let paused = stage.set_phase(WEB, Phase::Paused).await;
        settle().await;
        let grants = stage.store.list(&[keys::GRANTS]).await.expect("lists");
        let latest = grants.entries.values().map(|grant| grant.modified).max();
        assert!(latest.unwrap_or(0) < paused, "paused after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_cut_off_for_a_while_goes_on() {
    for sky in [Sky::Away, Sky::Silent, Sky::Slow] {
        let mut stage = ten().await;
        let weather = Weather::over(stage.store.clone());
        stage.lead_over(Arc::new(weather.clone()));
        settle().await;
        stage.update(WEB, service(2, "MaxUnavailable=3")).await;
        settle().await;
        weather.turn(sky);
        sleep(Duration::from_secs(300)).await;
        stage.obey_all().await;
        weather.turn(Sky::Clear);
        roll(&mut stage).await;
        assert_eq!(stage.revisions(WEB), [2; 10]);
    }
}

/// A clock that is set is no machine that takes too long; and whoever leads notices one that does.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_while_a_rollout_goes_on_does_not_end_it() {
    const HOUR: i64 = 3600;
    for (set, takes_over) in [(HOUR, false), (-HOUR, false), (HOUR, true), (-HOUR, true)] {
        let mut stage = ten().await;
        let policy = "MaxUnavailable=3\nProgressDeadlineSec=600";
        stage.update(WEB, service(2, policy)).await;
        settle().await;
        let first = stage.down(WEB).await;
        assert_eq!(first.len(), 3);
        stage.set_clock(set);
        if takes_over {
            stage.lead();
        }
        settle().await;
        stage.obey(first[0]).await;
        settle().await;
        assert!(stage.down(WEB).await.len() <= 3);
        let candidate = stage.unit(WEB).await.candidate.expect("it goes on");
        assert_eq!(candidate.phase, Phase::Rolling, "{}", candidate.reason);
        // Nobody else goes on. That takes as long to be noticed as it should.
        sleep(Duration::from_secs(550)).await;
        let candidate = stage.unit(WEB).await.candidate.expect("it goes on");
        assert_eq!(candidate.phase, Phase::Rolling, "{}", candidate.reason);
        // Progress is written down some time after it was made. Who is behind the clock that the
        // update began by waits until its own has come that far.
        let behind = if takes_over && set < 0 { 3600 } else { 0 };
        sleep(Duration::from_secs(100 + behind)).await;
        let candidate = stage.unit(WEB).await.candidate.expect("it goes back");
        assert_eq!(candidate.phase, Phase::RollingBack, "{set} {takes_over}");
    }
}
