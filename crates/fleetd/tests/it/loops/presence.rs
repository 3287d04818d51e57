//! What a leader notes of machines that come and go, and what it clears away.

use std::time::Duration;

use fleet_core::keys;
use fleet_core::record::{Event, EventKind, Grant, Known, OwnerRecord, Progress};
use fleet_core::rollout::Phase;
use fleetd::store::Write;
use tokio::time::sleep;

use super::fleet::{service, unit};
use super::rollouts::{roll, ten};
use super::stage::{Stage, id, settle};

const WEB: &str = "web.service";
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn of_kind(stage: &Stage, kind: EventKind) -> Vec<Event> {
    let events = stage.events().await;
    events
        .into_iter()
        .filter(|event| event.kind == kind)
        .collect()
}

async fn known(stage: &Stage, number: usize) -> Option<Known> {
    let key = keys::known(&id(number));
    stage.read(&key).await.remove(&key)
}

#[tokio::test(start_paused = true)]
async fn machines_that_go_together_are_told_of_together() {
    let mut stage = Stage::of(30).await;
    for number in 0..25 {
        stage.goes(number).await;
        sleep(Duration::from_millis(20)).await;
    }
    settle().await;
    let offline = of_kind(&stage, EventKind::MachineOffline).await;
    assert_eq!(offline.len(), 1);
    assert_eq!(offline[0].machines.len(), 25);
    let since = known(&stage, 3).await.expect("known").offline_since;
    assert!(since.is_some_and(|since| since.abs_diff(stage.now()) < 60_000));
    for number in 0..25 {
        stage.comes(number).await;
    }
    settle().await;
    let online = of_kind(&stage, EventKind::MachineOnline).await;
    assert_eq!(online.len(), 1);
    assert_eq!(online[0].machines.len(), 25);
    assert_eq!(known(&stage, 3).await.expect("known").offline_since, None);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_went_while_nobody_led_is_missed() {
    let mut stage = Stage::without_a_leader(3).await;
    stage.goes(1).await;
    settle().await;
    assert_eq!(known(&stage, 1).await.expect("known").offline_since, None);
    stage.lead();
    settle().await;
    // A new leader waits for machines that may be on their way back.
    assert_eq!(known(&stage, 1).await.expect("known").offline_since, None);
    for _ in 0..3 {
        settle().await;
    }
    assert!(
        known(&stage, 1)
            .await
            .expect("known")
            .offline_since
            .is_some()
    );
    // Nobody took its note back when it came: a leader does.
    let away = known(&stage, 1).await.expect("known");
    stage.comes(1).await;
    stage.put(keys::known(&id(1)), &away).await;
    settle().await;
    assert_eq!(known(&stage, 1).await.expect("known").offline_since, None);
}

#[tokio::test(start_paused = true)]
async fn a_machine_away_for_a_week_is_forgotten_with_what_was_its() {
    let mut stage = ten().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    settle().await;
    stage.set_phase(WEB, Phase::Paused).await;
    for number in [1, 2] {
        assert!(stage.grant(number, WEB).await.is_some());
        let owner = keys::owner(&unit(WEB), &id(number));
        stage.put(owner, &OwnerRecord { since: 0 }).await;
    }
    stage.goes(1).await;
    settle().await;
    // The week is counted whether or not somebody leads.
    stage.end();
    sleep(6 * DAY).await;
    stage.goes(2).await;
    sleep(DAY - Duration::from_secs(600)).await;
    stage.lead();
    settle().await;
    assert!(known(&stage, 1).await.is_some());
    assert!(stage.grant(1, WEB).await.is_some());
    // By a clock that has run for an hour as time does.
    sleep(Duration::from_secs(3600)).await;
    assert!(known(&stage, 1).await.is_none());
    assert!(stage.grant(1, WEB).await.is_none());
    assert!(known(&stage, 2).await.is_some());
    assert!(stage.grant(2, WEB).await.is_some());
    let forgotten = of_kind(&stage, EventKind::MachineForgotten).await;
    assert_eq!(forgotten.len(), 1);
    assert_eq!(forgotten[0].machines, [id(1)]);
    let owner = keys::owner(&unit(WEB), &id(2));
    assert_eq!(stage.keys(keys::OWNERS).await, [owner]);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_wrong_does_not_forget_the_fleet() {
    const CENTURY: i64 = 100 * 365 * 24 * 3600;
    for is_set_while_it_leads in [false, true] {
        let mut stage = ten().await;
        for number in 1..6 {
            stage.goes(number).await;
        }
        settle().await;
        let left = async |stage: &Stage| stage.keys(keys::KNOWN).await.len();
        if is_set_while_it_leads {
            sleep(Duration::from_secs(7200)).await;
        } else {
            stage.end();
        }
        stage.set_clock(CENTURY);
        if !is_set_while_it_leads {
            stage.lead();
        }
        stage.goes(7).await;
        sleep(Duration::from_secs(1800)).await;
        assert_eq!(left(&stage).await, 10);
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(
            left(&stage).await,
            9,
            "a tenth an hour, while nobody sees it"
        );
        stage.set_clock(0);
        sleep(DAY).await;
        assert_eq!(left(&stage).await, 9);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_noted_before_the_clock_was_set_is_not_forgotten() {
    let mut stage = ten().await;
    stage.goes(1).await;
    settle().await;
    let mut note = known(&stage, 1).await.expect("known");
    note.offline_since = Some(1000);
    stage.put(keys::known(&id(1)), &note).await;
    sleep(Duration::from_secs(7200)).await;
    let since = known(&stage, 1).await.expect("known").offline_since;
    assert!(since.is_some_and(|since| stage.now() - since < 8_000_000));
}

#[tokio::test(start_paused = true)]
async fn grants_that_were_followed_go_with_the_promotion() {
    let mut stage = ten().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    roll(&mut stage).await;
    settle().await;
    assert_eq!(stage.revisions(WEB), [2; 10]);
    assert_eq!(stage.keys(keys::GRANTS).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_a_unit_leaves_is_cleared_away() {
    let stage = ten().await;
    stage.update(WEB, service(2, "MaxUnavailable=3")).await;
    settle().await;
    assert!(!stage.read::<Grant>(keys::GRANTS).await.is_empty());
    let gone = Write::Delete(keys::unit(&unit(WEB)));
    stage.write(vec![gone]).await;
    settle().await;
    assert!(stage.read::<Grant>(keys::GRANTS).await.is_empty());
    assert!(stage.read::<Progress>(keys::ROLLOUTS).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn leftovers_of_a_time_without_leader_are_removed() {
    let mut stage = Stage::without_a_leader(3).await;
    stage.launch(WEB, service(1, "")).await;
    let created = stage.store_revision_of(&keys::unit(&unit(WEB))).await;
    let grant = |unit| Grant {
        unit,
        revision: 1,
        session: 1,
        was_available: true,
        proved: false,
        leaves: false,
    };
    let (web, gone) = (unit(WEB), unit("gone.service"));
    stage.put(keys::grant(&id(0), &web), &grant(created)).await;
    stage
        .put(keys::grant(&id(1), &web), &grant(created - 1))
        .await;
    stage.put(keys::grant(&id(1), &gone), &grant(created)).await;
    stage.put(keys::grant(&id(88), &web), &grant(created)).await;
    stage.put_bytes(keys::history(&web, 1), Vec::new()).await;
    stage.put_bytes(keys::history(&gone, 1), Vec::new()).await;
    stage.lead();
    settle().await;
    let left = stage.read::<Grant>(keys::GRANTS).await;
    assert_eq!(
        left.keys().collect::<Vec<_>>(),
        [&keys::grant(&id(0), &web)]
    );
    assert_eq!(stage.keys(keys::HISTORY).await, [keys::history(&web, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_presence_does_not_outlive_its_machine() {
    let mut stage = Stage::without_a_leader(3).await;
    for number in [0, 1] {
        let presence = keys::machine(&id(number));
        stage.put_bytes(presence, b"{".to_vec()).await;
    }
    // Their leases end, which the presence is no longer under.
    stage.goes(1).await;
    stage.lead();
    settle().await;
    assert_eq!(stage.keys(keys::MACHINES).await.len(), 2);
    stage.goes(0).await;
    settle().await;
    let here = stage.keys(keys::MACHINES).await;
    assert_eq!(here, [keys::machine(&id(2))]);
    for number in [0, 1] {
        let away = known(&stage, number).await.expect("known");
        assert!(away.offline_since.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_thousand_events_are_kept() {
    let mut stage = Stage::of(1).await;
    let old: Vec<String> = (0..1500).map(|count| keys::event(5, count)).collect();
    for key in &old {
        stage.put_bytes(key.clone(), b"{}".to_vec()).await;
    }
    stage.lead();
    settle().await;
    for _ in 0..20 {
        stage.goes(0).await;
        sleep(Duration::from_secs(3)).await;
        stage.comes(0).await;
        sleep(Duration::from_secs(3)).await;
    }
    let kept = stage.keys(keys::EVENTS).await;
    assert!((1000..1100).contains(&kept.len()), "{}", kept.len());
    assert!(kept.contains(&old[1499]));
    assert!(!kept.contains(&old[0]));
}

#[tokio::test(start_paused = true)]
async fn events_stay_in_order_when_the_next_leader_clock_is_behind() {
    let mut stage = Stage::of(1).await;
    // By its own clock the one before led an hour later, and somebody wrote what is no time at all.
    let later = stage.now() + 3_600_000;
    let ahead = Event {
        at: later,
        ..of_kind(&stage, EventKind::Leading).await[0].clone()
    };
    stage.put(keys::event(later, 3), &ahead).await;
    stage
        .put_bytes(keys::event(u64::MAX, 0), b"{}".to_vec())
        .await;
    stage.lead();
    settle().await;
    stage.goes(0).await;
    settle().await;
    let kinds = stage.kinds().await;
    let expected = [
        EventKind::Leading,
        EventKind::Leading,
        EventKind::Leading,
        EventKind::MachineOffline,
    ];
    assert_eq!(kinds, expected);
    let events = stage.events().await;
    assert_eq!(events[1].at, later);
    assert!(events[3].at < later, "the time is the leader's own");
}
