//! Changes of units that are asked for at once: made in few commits, and each answered for itself.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::record::Owner;
use fleet_core::submission::Submission;
use fleet_core::unit::{Content, TargetState};
use fleetd::registry::{Registry, RegistryError, UNITS_MAX};
use fleetd::store::{Embedded, Store as _, StoreError};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::fleet::{service, unit};
use super::weather::{Sky, Weather};

/// A registry whose every call takes half a second.
fn slow(store: &Embedded) -> (Registry, Weather) {
    let weather = Weather::over(store.clone());
    weather.turn(Sky::Slow);
    (Registry::new(Arc::new(weather.clone())), weather)
}

async fn revision(store: &Embedded) -> u64 {
    store.list(&["nothing"]).await.expect("listed").revision
}

async fn submit(
    registry: &Registry,
    name: &str,
    version: u32,
) -> Result<Submission, RegistryError> {
    let content = service(version, "");
    registry
        .submit(&unit(name), content, Owner::Api, None)
        .await
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("u{n}.service")).collect()
}

#[tokio::test(start_paused = true)]
async fn what_comes_at_once_is_made_in_few_commits() {
    let store = Embedded::in_memory();
    let (registry, _) = slow(&store);
    let names = names(200);
    let before = revision(&store).await;
    let created = join_all(names.iter().map(|name| submit(&registry, name, 1))).await;
    let is_created = |made: &Result<_, _>| matches!(made, Ok(Submission::Created(_)));
    assert!(created.iter().all(is_created));
    assert_eq!(revision(&store).await, before + 5);
    let units: Vec<_> = names.iter().map(|name| unit(name)).collect();
    let loaded = units
        .iter()
        .map(|name| registry.set_target(name, TargetState::Loaded));
    assert!(
        join_all(loaded)
            .await
            .iter()
            .all(|set| matches!(set, Ok(true)))
    );
    assert_eq!(revision(&store).await, before + 10);
    // One alone waits for nobody: it reads, and commits.
    let begun = Instant::now();
    submit(&registry, "u0.service", 2).await.expect("submitted");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn changes_of_one_unit_are_made_one_after_the_other() {
    let store = Embedded::in_memory();
    let (registry, _) = slow(&store);
    let (begun, versions) = (Instant::now(), 1..=5);
    let made = join_all(versions.map(|version| submit(&registry, "a.service", version))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    // Each reads and commits once; the first asks how many units there are, too.
    assert_eq!(begun.elapsed(), Duration::from_millis(5_500));
    let stored = registry.unit(&unit("a.service")).await.expect("read");
    let stored = stored.expect("it exists");
    assert_eq!(stored.record.newest().content, service(5, ""));
    assert_eq!(revision(&store).await, stored.created + 4);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_made_stops_no_other() {
    let store = Embedded::in_memory();
    let (registry, _) = slow(&store);
    let (large, single, none) = (unit("large.service"), unit("b.service"), unit("c.service"));
    let not_global = Content::from("[Service]\nExecStart=/x\n");
    let submitted = registry.submit(&single, not_global, Owner::Api, None);
    submitted.await.expect("submitted");
    let content = Content::from("#".repeat(2 << 20).into_bytes());
    let (large, single, none, good) = tokio::join!(
        registry.submit(&large, content, Owner::Api, None),
        registry.set_target(&single, TargetState::Launched),
        registry.set_target(&none, TargetState::Launched),
        submit(&registry, "a.service", 1),
    );
    let is_large =
        |error: &RegistryError| matches!(error, RegistryError::Store(StoreError::Rejected(_)));
    assert!(large.as_ref().is_err_and(is_large), "{large:?}");
    assert!(
        matches!(single, Err(RegistryError::NotLaunchable(_))),
        "{single:?}"
    );
    assert!(matches!(none, Ok(false)), "{none:?}");
    assert!(matches!(good, Ok(Submission::Created(_))), "{good:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_machines_that_change_the_same_units_both_are_followed() {
    let store = Embedded::in_memory();
    let (one, other) = (slow(&store).0, slow(&store).0);
    let names = names(20);
    let ones = join_all(names.iter().map(|name| submit(&one, name, 1)));
    let others = join_all(names.iter().map(|name| submit(&other, name, 2)));
    let (ones, others) = tokio::join!(ones, others);
    assert!(ones.iter().chain(&others).all(Result::is_ok));
    for name in &names {
        let stored = one
            .unit(&unit(name))
            .await
            .expect("read")
            .expect("it exists");
        assert_eq!(stored.record.newest().number, 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_units_than_there_may_be() {
    let store = Embedded::in_memory();
    let registry = Registry::new(Arc::new(store));
    let names = names(UNITS_MAX + 20);
    let made = join_all(names.iter().map(|name| submit(&registry, name, 1))).await;
    let refused = |made: &&Result<_, _>| matches!(made, Err(RegistryError::TooManyUnits));
    // One key is of what was destroyed last, and nothing was.
    assert_eq!(made.iter().filter(refused).count(), 19);
    assert_eq!(
        made.iter().filter(|made| made.is_ok()).count(),
        UNITS_MAX + 1
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_with_the_others_that_the_registry_is_away() {
    let (registry, weather) = slow(&Embedded::in_memory());
    weather.turn(Sky::Silent);
    let begun = Instant::now();
    let names = names(200);
    let made = join_all(names.iter().map(|name| submit(&registry, name, 1))).await;
    let is_away =
        |made: &Result<_, _>| matches!(made, Err(RegistryError::Store(StoreError::Unavailable(_))));
    assert!(made.iter().all(is_away));
    assert_eq!(
        begun.elapsed(),
        Duration::from_secs(3),
        "once, not four times"
    );
    weather.turn(Sky::Clear);
    submit(&registry, "a.service", 1).await.expect("it is back");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_a_commit_goes_into_the_next() {
    let store = Embedded::in_memory();
    let (registry, _) = slow(&store);
    let names = names(8);
    let units: Vec<_> = names.iter().map(|name| unit(name)).collect();
    let content = Content::from("#".repeat(500 << 10).into_bytes());
    let before = revision(&store).await;
    let submitted = units
        .iter()
        .map(|name| registry.submit(name, content.clone(), Owner::Api, None));
    let made = join_all(submitted).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let commits = revision(&store).await - before;
    assert!((3..8).contains(&commits), "{commits}");
}
