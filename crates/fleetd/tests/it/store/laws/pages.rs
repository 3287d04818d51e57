//! Reads in pages.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetd::store::{Store, StoreError};
use tokio::time::sleep;

use super::{delete, list, put, write};
use crate::store::Subject;

/// Returns pages of two keys, as `key=value`.
async fn read(store: &dyn Store, at: Option<u64>) -> Result<Vec<Vec<String>>, StoreError> {
    let (mut at, mut after, mut pages) = (at, None::<String>, Vec::new());
    loop {
        let page = store.page("list/", after.as_deref(), 2, at).await?;
        at = Some(page.snapshot.revision);
        after = page.snapshot.entries.keys().last().cloned();
        let entries = page.snapshot.entries.iter();
        let brief = entries.map(|(key, entry)| {
            let value = String::from_utf8_lossy(&entry.value);
            format!("{key}={value}")
        });
        pages.push(brief.collect());
        if !page.more {
            return Ok(pages);
        }
    }
}

pub(crate) async fn pages_cover_a_prefix_completely_and_in_order(subject: &Subject) {
    let store = subject.store();
    assert_eq!(read(store, None).await.expect("read"), [[""; 0]]);
    for key in ["list/b", "list/a", "list0", "list", "list/c/d", "list/c"] {
        write(store, [put(key, "1")]).await;
    }
    let pages = read(store, None).await.expect("read");
    assert_eq!(
        pages,
        [["list/a=1", "list/b=1"], ["list/c=1", "list/c/d=1"]]
    );
    assert_eq!(store.count("list/").await.expect("counted"), 4);
    assert_eq!(store.count("none/").await.expect("counted"), 0);
    write(store, [put("list/e", "1")]).await;
    let pages = read(store, None).await.expect("read");
    assert_eq!(pages.last().map(Vec::len), Some(1));
}

pub(crate) async fn page_of_an_older_revision_is_unchanged_or_compacted(subject: &Subject) {
    let store = subject.store();
    let revision = write(
        store,
        ["a", "b", "c"].map(|key| put(&format!("list/{key}"), "old")),
    )
    .await;
    write(store, [put("list/a", "new"), delete("list/b")]).await;
    match read(store, Some(revision)).await {
        Ok(pages) => assert_eq!(
            pages,
            [vec!["list/a=old", "list/b=old"], vec!["list/c=old"]]
        ),
        Err(error) => assert!(matches!(error, StoreError::Compacted(_)), "{error}"),
    }
    let earliest = subject.forget_history().await;
    let gone = store.page("list/", None, 2, Some(earliest - 1)).await;
    assert!(matches!(gone, Err(StoreError::Compacted(_))), "{gone:?}");
}

pub(crate) async fn list_of_megabytes_has_one_revision_while_others_write(subject: &Subject) {
    const KEYS: usize = 1000;
    let store = subject.store();
    let value = "x".repeat(6 << 10);
    let key = |number: usize| format!("list/{number:04}");
    let all: Vec<usize> = (0..KEYS).collect();
    for some in all.chunks(100) {
        write(store, some.iter().map(|number| put(&key(*number), &value))).await;
    }
    write(store, [put("other/a", "1"), put("list0", "")]).await;
    // The first and the last listed key have the same value at each revision.
    let ends = |round: u32| [key(0), key(KEYS)].map(|key| put(&key, &format!("{round}")));
    write(store, ends(0)).await;
    let writer = async {
        for round in 1.. {
            write(store, ends(round)).await;
            sleep(Duration::from_millis(1)).await;
        }
    };
    let reader = async {
        let mut rounds = BTreeSet::new();
        for _ in 0..100 {
            let snapshot = list(store, &["list/", "other/"]).await;
            assert_eq!(snapshot.entries.len(), KEYS + 2);
            let [first, last] = [0, KEYS].map(|number| &snapshot.entries[&key(number)]);
            assert_eq!((&first.value, first.modified), (&last.value, last.modified));
            assert!(last.modified <= snapshot.revision);
            rounds.insert(last.modified);
            if rounds.len() == 5 {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("no write came meanwhile: {rounds:?}");
    };
    tokio::select! {
        () = writer => unreachable!("it goes on for ever"),
        () = reader => {}
    }
}
