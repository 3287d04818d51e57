//! Units that the directories of several machines own together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_core::directory::Fingerprint;
use fleet_core::keys;
use fleet_core::record::{self, Owner, UnitRecord};
use fleet_core::unit::TargetState;
use fleetd::registry::{AsOwner, Registry};
use fleetd::store::{Embedded, Store, Write};
use fleetd::units_dir::Publisher as _;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::between::Between;
use super::fleet::{cluster, service, unit};
use super::stage::{id, revision};

const WEB: &str = "web.service";

fn registry(store: &Embedded) -> Registry {
    Registry::new(Arc::new(store.clone()))
}

/// That machine's directory.
fn directory(store: impl Store + 'static, number: usize) -> AsOwner {
    AsOwner {
        registry: Registry::new(Arc::new(store)),
        machine: id(number),
    }
}

async fn publish(store: &Embedded, number: usize, version: u32) {
    let content = service(version, "");
    let (directory, name) = (directory(store.clone(), number), unit(WEB));
    let published = directory.publish(&name, &content, TargetState::Launched);
    published.await.expect("published");
}

async fn owners(store: &Embedded) -> Vec<String> {
    let owners = store.keys(keys::OWNERS).await.expect("lists");
    owners.into_keys().collect()
}

async fn exists(store: &Embedded) -> bool {
    registry(store)
        .unit(&unit(WEB))
        .await
        .expect("reads")
        .is_some()
}

#[tokio::test(start_paused = true)]
async fn an_adoption_never_reverts_an_update_that_came_first() {
    for is_destroyed in [false, true] {
        let store = cluster("one").await;
        publish(&store, 0, 2).await;
        let is_done = Arc::new(AtomicBool::new(false));
        let between = Between::new(&store, move |store| {
            let is_first = !is_done.swap(true, Ordering::Relaxed);
            async move {
                let registry = registry(&store);
                if is_first && is_destroyed {
                    registry.destroy(&unit(WEB)).await.expect("destroyed");
                } else if is_first {
                    let (name, content) = (unit(WEB), service(3, ""));
                    let submitted = registry.submit(&name, content, Owner::Api, None);
                    submitted.await.expect("submitted");
                }
            }
            .boxed()
        });
        let seen = Fingerprint::of(&service(2, ""));
        let adopted = directory(between, 1).adopt(&unit(WEB), Some(&seen)).await;
        assert_eq!(adopted, Ok(is_destroyed), "what is gone is done with");
        let now = registry(&store).unit(&unit(WEB)).await.expect("reads");
        let newest = now.map(|unit| unit.record.newest().content.clone());
        assert_eq!(newest, (!is_destroyed).then(|| service(3, "")));
        assert!(
            !owners(&store)
                .await
                .contains(&keys::owner(&unit(WEB), &id(1)))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_unit_is_destroyed_meanwhile_is_launched() {
    let store = cluster("one").await;
    publish(&store, 0, 1).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let between = Between::new(&store, move |store| {
        let is_first = !is_done.swap(true, Ordering::Relaxed);
        async move {
            if is_first {
                registry(&store)
                    .destroy(&unit(WEB))
                    .await
                    .expect("destroyed");
            }
        }
        .boxed()
    });
    let directory = directory(between, 1);
    let target = TargetState::Launched;
    let published = directory.publish(&unit(WEB), &service(2, ""), target).await;
    published.expect("published");
    let now = registry(&store).unit(&unit(WEB)).await.expect("reads");
    assert_eq!(now.expect("it is there").record.target, target);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_owners_do_not_write_the_unit() {
    let store = cluster("one").await;
    publish(&store, 0, 1).await;
    let written = store.keys(keys::UNITS).await.expect("lists");
    let seen = Fingerprint::of(&service(1, ""));
    let adopt = async |number: usize| {
        let directory = directory(store.clone(), number);
        directory.adopt(&unit(WEB), Some(&seen)).await
    };
    for adopted in join_all((0..1000).map(adopt)).await {
        assert_eq!(adopted, Ok(true));
    }
    assert_eq!(store.keys(keys::UNITS).await.expect("lists"), written);
    assert_eq!(owners(&store).await.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn of_two_last_owners_that_go_at_once_one_destroys_the_unit() {
    let store = cluster("one").await;
    publish(&store, 0, 1).await;
    publish(&store, 1, 1).await;
    // Both have read that the other one is an owner before either has gone.
    let slow = || {
        Between::new(&store, |_| {
            tokio::time::sleep(Duration::from_millis(10)).boxed()
        })
    };
    let (one, other) = (directory(slow(), 0), directory(slow(), 1));
    let name = unit(WEB);
    let (gone, also) = tokio::join!(one.disown(&name), other.disown(&name));
    assert_eq!((gone, also), (Ok(()), Ok(())));
    assert!(!exists(&store).await);
    assert_eq!(owners(&store).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_adopted_while_its_last_owner_goes_stays() {
    let store = cluster("one").await;
    publish(&store, 0, 1).await;
    let between = Between::new(&store, |store| {
        async move {
            let adopted = directory(store, 1).adopt(&unit(WEB), None).await;
            assert_eq!(adopted, Ok(true));
        }
        .boxed()
    });
    let gone = directory(between, 0).disown(&unit(WEB)).await;
    assert_eq!(gone, Ok(()));
    assert!(exists(&store).await);
    assert_eq!(owners(&store).await, [keys::owner(&unit(WEB), &id(1))]);
}

#[tokio::test(start_paused = true)]
async fn owners_that_an_older_version_wrote_into_the_record_count() {
    let store = cluster("one").await;
    let record = UnitRecord {
        target: TargetState::Launched,
        stable: revision(1, service(1, "")),
        candidate: None,
        last: None,
        owners: BTreeSet::from([Owner::Directory(id(0)), Owner::Directory(id(1))]),
    };
    let write = Write::Put {
        key: keys::unit(&unit(WEB)),
        value: record::encode(&record),
        lease: None,
    };
    store
        .commit(Vec::new(), vec![write])
        .await
        .expect("written");
    let name = unit(WEB);
    for number in [0, 2] {
        let gone = directory(store.clone(), number).disown(&name).await;
        assert_eq!(gone, Ok(()));
        assert!(exists(&store).await, "{number}");
    }
    let adopted = directory(store.clone(), 2).adopt(&name, None).await;
    assert_eq!(adopted, Ok(true));
    for (number, stays) in [(1, true), (2, false)] {
        let gone = directory(store.clone(), number).disown(&name).await;
        assert_eq!(gone, Ok(()));
        assert_eq!(exists(&store).await, stays, "{number}");
    }
}
