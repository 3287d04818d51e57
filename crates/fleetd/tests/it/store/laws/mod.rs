//! The laws of every store. Each law gets a store of its own.

mod commits;
mod leases;
mod pages;
mod watches;

use std::time::Duration;

use fleetd::store::{Batch, Change, Entry, LeaseId, Result, Snapshot, Store, Watch, Write};
use tokio::time::timeout;

pub(crate) use self::commits::*;
pub(crate) use self::leases::*;
pub(crate) use self::pages::*;
pub(crate) use self::watches::*;

/// Far longer than anything here takes, so that a failing law does not hang.
const LIMIT: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(2);

pub(crate) fn put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.into(),
        value: value.into(),
        lease: None,
    }
}

fn put_leased(key: &str, lease: LeaseId) -> Write {
    Write::Put {
        key: key.into(),
        value: b"here".into(),
        lease: Some(lease),
    }
}

fn delete(key: &str) -> Write {
    Write::Delete(key.into())
}

pub(crate) async fn write(store: &dyn Store, writes: impl IntoIterator<Item = Write>) -> u64 {
    let writes = writes.into_iter().collect();
    store
        .commit(vec![], writes)
        .await
        .expect("nothing is against it")
}

pub(crate) async fn list(store: &dyn Store, prefixes: &[&str]) -> Snapshot {
    store.list(prefixes).await.expect("it is there")
}

async fn keys(store: &dyn Store, prefixes: &[&str]) -> Vec<String> {
    list(store, prefixes).await.entries.into_keys().collect()
}

pub(crate) async fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    list(store, &[key]).await.entries.remove(key)
}

pub(crate) async fn watch(store: &dyn Store, prefixes: &[&str], after: u64) -> Box<dyn Watch> {
    store.watch(prefixes, after).await.expect("it is there")
}

pub(crate) async fn next(watch: &mut Box<dyn Watch>) -> Result<Batch> {
    timeout(LIMIT, watch.next()).await.expect("something comes")
}

/// Returns the next batch as its revision and `key=value` or `-key`, sorted.
async fn seen(watch: &mut Box<dyn Watch>) -> (u64, Vec<String>) {
    let batch = next(watch).await.expect("the watch goes on");
    let mut changes: Vec<_> = batch.changes.iter().map(brief).collect();
    changes.sort();
    (batch.revision, changes)
}

fn brief(change: &Change) -> String {
    match change {
        Change::Put(key, entry) => format!("{key}={}", String::from_utf8_lossy(&entry.value)),
        Change::Delete(key) => format!("-{key}"),
    }
}

fn batch(revision: u64, changes: &[&str]) -> (u64, Vec<String>) {
    (
        revision,
        changes.iter().map(|change| change.to_string()).collect(),
    )
}
