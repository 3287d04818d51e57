//! Watches return every commit, once, in order, or an error.

use std::time::Duration;

use fleetd::store::{Change, Snapshot, StoreError};
use tokio::time::{sleep, timeout};

use super::{LIMIT, batch, brief, delete, get, list, next, put, seen, watch, write};
use crate::store::Subject;

/// A watch without a batch in this time counts as silent.
const SILENCE: Duration = Duration::from_millis(200);

pub(crate) async fn a_watch_replays_what_came_before_it(subject: &Subject) {
    let store = subject.store();
    let first = write(store, [put("units/a", "1")]).await;
    let second = write(store, [put("units/a", "2"), put("units/b", "2")]).await;
    let third = write(store, [delete("units/a")]).await;
    let mut from_first = watch(store, &["units/"], first).await;
    assert_eq!(
        seen(&mut from_first).await,
        batch(second, &["units/a=2", "units/b=2"])
    );
    assert_eq!(seen(&mut from_first).await, batch(third, &["-units/a"]));
    let fourth = write(store, [put("units/c", "4")]).await;
    assert_eq!(seen(&mut from_first).await, batch(fourth, &["units/c=4"]));
}

pub(crate) async fn a_watch_sees_its_prefixes_and_nothing_else(subject: &Subject) {
    let store = subject.store();
    let begin = list(store, &[""]).await.revision;
    let mut watch = watch(
        store,
        &["units/", "grants/me/", "units/a", "cluster"],
        begin,
    )
    .await;
    write(store, [put("reports/me", "1"), put("grants/other/a", "1")]).await;
    let revision = write(store, [put("units/a", "1"), put("reports/me", "2")]).await;
    assert_eq!(seen(&mut watch).await, batch(revision, &["units/a=1"]));
    let revision = write(store, [put("grants/me/a", "1")]).await;
    assert_eq!(seen(&mut watch).await, batch(revision, &["grants/me/a=1"]));
    let revision = write(store, [put("cluster", "1")]).await;
    assert_eq!(seen(&mut watch).await, batch(revision, &["cluster=1"]));
    let quiet = timeout(SILENCE, watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

pub(crate) async fn a_watch_reports_when_an_entry_was_made(subject: &Subject) {
    let store = subject.store();
    let made = write(store, [put("a", "1")]).await;
    let mut watch = watch(store, &["a"], made).await;
    write(store, [put("a", "2")]).await;
    let batch = next(&mut watch).await.expect("the watch goes on");
    let entry = get(store, "a").await.expect("it is there");
    assert_eq!(batch.changes, [Change::Put("a".into(), entry)]);
}

pub(crate) async fn a_list_and_a_watch_from_it_lose_and_double_nothing(subject: &Subject) {
    let store = subject.store();
    let writer = async {
        for number in 0..150 {
            let keys = ["a/x", "b/x"].map(|key| put(key, &number.to_string()));
            write(store, keys).await;
        }
    };
    let reader = async {
        sleep(Duration::from_millis(10)).await;
        let snapshot = list(store, &["a/", "b/"]).await;
        let mut watch = watch(store, &["a/", "b/"], snapshot.revision).await;
        let (mut a, mut b) = (value(&snapshot, "a/x"), value(&snapshot, "b/x"));
        while (a, b) != (149, 149) {
            for change in next(&mut watch).await.expect("the watch goes on").changes {
                match brief(&change).split_once('=') {
                    Some(("a/x", new)) => a = following(a, new),
                    Some(("b/x", new)) => b = following(b, new),
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    tokio::join!(writer, reader);

    fn value(snapshot: &Snapshot, key: &str) -> i32 {
        let entry = snapshot.entries.get(key);
        entry.map_or(-1, |entry| {
            String::from_utf8_lossy(&entry.value)
                .parse()
                .expect("a number")
        })
    }
    fn following(old: i32, new: &str) -> i32 {
        let new = new.parse().expect("a number");
        assert_eq!(old + 1, new, "one after the other");
        new
    }
}

pub(crate) async fn a_watch_whose_next_was_cancelled_loses_nothing(subject: &Subject) {
    let store = subject.store();
    let begin = list(store, &[""]).await.revision;
    let mut watch = watch(store, &["a/"], begin).await;
    let writer = async {
        for number in 0..100 {
            write(store, [put("a/x", &number.to_string())]).await;
        }
    };
    let reader = async {
        let mut expected = 0;
        while expected < 100 {
            let pause = Duration::from_micros(expected % 7 * 100);
            if let Ok(batch) = timeout(pause, watch.next()).await {
                let changes = batch.expect("the watch goes on").changes;
                assert_eq!(
                    changes.iter().map(brief).collect::<Vec<_>>(),
                    [format!("a/x={expected}")]
                );
                expected += 1;
            }
        }
    };
    let both = async { tokio::join!(writer, reader) };
    timeout(LIMIT, both).await.expect("all of them come");
}

pub(crate) async fn a_watch_from_before_the_kept_history_says_compacted(subject: &Subject) {
    let store = subject.store();
    let old = write(store, [put("a", "1")]).await;
    let oldest_kept = subject.forget_history().await;
    let ended = match store.watch(&["a", "b"], old).await {
        Ok(mut watch) => next(&mut watch).await.expect_err("too old"),
        Err(error) => error,
    };
    assert!(matches!(ended, StoreError::Compacted(_)), "{ended}");
    let latest = write(store, [put("a", "new")]).await;
    let mut watch = watch(store, &["a"], oldest_kept).await;
    assert_eq!(seen(&mut watch).await, batch(latest, &["a=new"]));
}
