//! Leases: their keys live as long as they do.

use fleetd::store::{LeaseId, StoreError};
use tokio::time::sleep;

use super::{TTL, keys, put, put_leased, seen, watch, write};
use crate::store::Subject;

pub(crate) async fn a_lease_that_ends_takes_its_keys_and_watchers_see_it(subject: &Subject) {
    let store = subject.store();
    let lease = store.create_lease(TTL).await.expect("granted");
    let leased = [
        put_leased("machines/m", lease),
        put_leased("reports/m", lease),
    ];
    let begin = write(store, leased.into_iter().chain([put("units/a", "1")])).await;
    let mut watch = watch(store, &["machines/", "units/"], begin).await;
    let (revision, changes) = seen(&mut watch).await;
    assert_eq!(changes, ["-machines/m"]);
    assert!(revision > begin);
    assert_eq!(keys(store, &[""]).await, ["units/a"]);
    let late = store.renew(lease).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
}

pub(crate) async fn a_renewed_lease_stays(subject: &Subject) {
    let store = subject.store();
    let lease = store.create_lease(TTL).await.expect("granted");
    write(store, [put_leased("leader", lease)]).await;
    for _ in 0..3 {
        sleep(TTL / 2).await;
        store.renew(lease).await.expect("in time");
    }
    assert_eq!(keys(store, &[""]).await, ["leader"]);
}

pub(crate) async fn a_revoked_lease_takes_its_keys_at_once(subject: &Subject) {
    let store = subject.store();
    let lease = store.create_lease(TTL).await.expect("granted");
    write(store, [put_leased("leader", lease)]).await;
    store.renew(lease).await.expect("in time");
    store.revoke(lease).await.expect("it is there");
    assert!(keys(store, &[""]).await.is_empty());
    store
        .revoke(lease)
        .await
        .expect("that it is gone is no error");
    let late = store.renew(lease).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
}

pub(crate) async fn nothing_is_put_under_a_lease_that_is_gone(subject: &Subject) {
    let store = subject.store();
    let lease = store.create_lease(TTL).await.expect("granted");
    store.revoke(lease).await.expect("it is there");
    for gone in [lease, LeaseId(0), LeaseId(424_242)] {
        let answer = store
            .commit(vec![], vec![put("a", "1"), put_leased("b", gone)])
            .await;
        assert!(
            matches!(answer, Err(StoreError::LeaseLost)),
            "{gone:?}: {answer:?}"
        );
        let renewed = store.renew(gone).await;
        assert!(
            matches!(renewed, Err(StoreError::LeaseLost)),
            "{gone:?}: {renewed:?}"
        );
    }
    assert!(keys(store, &[""]).await.is_empty());
}

pub(crate) async fn a_put_without_a_lease_detaches_the_key(subject: &Subject) {
    let store = subject.store();
    let lease = store.create_lease(TTL).await.expect("granted");
    write(store, [put_leased("a", lease), put_leased("b", lease)]).await;
    write(store, [put("a", "stays")]).await;
    store.revoke(lease).await.expect("it is there");
    assert_eq!(keys(store, &[""]).await, ["a"]);
}
