//! The store of a cluster: etcd, version 3.
//!
//! `endpoints` chooses the member for a request, and `failure` interprets a failed request. `watch`
//! and `lease` keep the two streams that outlive a request. While nothing changes, only pings and
//! lease renewals are sent.

mod config;
mod endpoints;
mod failure;
mod lease;
mod patience;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KeyValue, PutOptions,
    ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

pub use self::config::{ConfigError, EtcdConfig};
use self::endpoints::{Endpoints, Repeat};
use self::failure::Failure;
use self::lease::KeepAlives;
use self::patience::Patience;
use self::watch::{EtcdWatch, Opened};
use super::{
    Entry, Guard, LeaseId, Page, Result, Snapshot, Store, StoreError, Watch, Write, request,
};

/// The number of values in the first read, below all prefixes together. It covers what most readers
/// need. Even that many values of the largest size, 1.5 MiB, fit into one message. More values take
/// several answers.
const FIRST: usize = 160;

/// The smallest number of values read for each prefix. With many units at once, it covers all older
/// revisions, which are half as large.
const AT_LEAST: usize = 12;

/// The number of keys in one answer without values. They take about a megabyte.
const KEYS: i64 = 8_000;

/// The wanted size of later answers, in bytes.
const PART: usize = 4 << 20;

/// The approximate size of an entry beside its key and value.
const ENTRY: usize = 100;

/// The number of attempts at a list. It starts over if etcd has compacted its revision.
const LISTS: usize = 3;

/// A store in etcd. One connection, to one endpoint at a time, serves all requests and watches.
pub struct EtcdStore {
    endpoints: Arc<Endpoints>,
    prefix: String,
    keep_alives: Arc<KeepAlives>,
    patience: Patience,
    /// The patience with renewals of leases.
    renewing: Patience,
}

impl EtcdStore {
    /// Returns a store for these settings. It connects with the first request, and reads the files
    /// then.
    pub fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        Ok(Self {
            prefix: config.prefix.clone(),
            endpoints: Arc::new(Endpoints::new(config)),
            keep_alives: Arc::default(),
            patience: Patience::default(),
            renewing: Patience::default(),
        })
    }

    /// Returns the same store, over the same connection, for an agent. An agent is one of
    /// thousands, and waits as long as etcd works on a request. A late renewal must leave time for
    /// another one. etcd answers renewals within a second, however busy it is.
    pub fn for_agent(&self) -> Self {
        self.with(Patience::growing(3), Patience::growing(2))
    }

    /// Returns the same store for an engine, which another engine should replace soon if it cannot
    /// reach etcd.
    pub fn for_engine(&self) -> Self {
        self.with(Patience::growing(0), Patience::growing(0))
    }

    fn with(&self, patience: Patience, renewing: Patience) -> Self {
        Self {
            endpoints: self.endpoints.clone(),
            prefix: self.prefix.clone(),
            keep_alives: self.keep_alives.clone(),
            patience,
            renewing,
        }
    }

    async fn call<T, F>(
        &self,
        repeat: Repeat,
        request: impl Fn(Arc<endpoints::Connection>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.endpoints.call(&self.patience, repeat, request).await
    }

    async fn txn(&self, repeat: Repeat, txn: Txn) -> Result<TxnResponse> {
        let request = |connection: Arc<endpoints::Connection>| {
            let txn = txn.clone();
            async move { Ok::<_, Failure>(connection.kv().txn(txn).await?) }
        };
        self.call(repeat, request).await
    }

    /// Reads below the prefix, from the key `first` on.
    async fn range(&self, prefix: &str, first: String, options: GetOptions) -> Result<GetResponse> {
        let request = |connection: Arc<endpoints::Connection>| {
            let (first, options) = (first.clone(), options.clone());
            async move { Ok::<_, Failure>(connection.kv().get(first, Some(options)).await?) }
        };
        let answer = self.call(Repeat::Always, request).await;
        answer.map_err(|error| denied_to("read", &[prefix], error))
    }

    /// Reads the first values below each prefix in one request. The rest is read at the revision of
    /// its answer.
    async fn list_at_one_revision(&self, prefixes: &[&str]) -> Result<Snapshot> {
        let first = (FIRST / prefixes.len().max(1)).max(AT_LEAST);
        let options = GetOptions::new().with_prefix().with_limit(first as i64);
        let range = |prefix: &&str| TxnOp::get(self.key(prefix), Some(options.clone()));
        let ranges: Vec<_> = prefixes.iter().map(range).collect();
        let answer = self
            .txn(Repeat::Always, Txn::new().and_then(ranges))
            .await
            .map_err(|error| denied_to("read", prefixes, error))?;
        let (revision, cluster) = (revision(&answer), cluster(answer.header()));
        let mut snapshot = Snapshot {
            revision,
            ..Snapshot::default()
        };
        for (prefix, range) in prefixes.iter().zip(answer.op_responses()) {
            let TxnOpResponse::Get(mut range) = range else {
                continue;
            };
            let mut more = range.more();
            let mut entries = self.entries(range.take_kvs());
            while more && let Some((last, _)) = entries.last_key_value() {
                let (last, limit) = (last.clone(), at_once(&entries));
                snapshot.entries.extend(entries);
                let rest = self.below(prefix, Some(&last), limit, Some(revision));
                let mut rest = rest.await?;
                if cluster != self::cluster(rest.header()) {
                    return Err(StoreError::Compacted(0));
                }
                more = rest.more();
                entries = self.entries(rest.take_kvs());
            }
            snapshot.entries.extend(entries);
        }
        Ok(snapshot)
    }

    /// Reads one range below the prefix; see [`Store::page`].
    async fn below(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<u64>,
    ) -> Result<GetResponse> {
        let first = match after {
            // The first possible key after it.
            Some(after) => self.key(after) + "\0",
            None => self.key(prefix),
        };
        let options = GetOptions::new()
            .with_range(behind(self.key(prefix)))
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .with_revision(at.map_or(0, |at| at as i64));
        self.range(prefix, first, options).await
    }

    /// Returns the values that fleet wrote, by keys without the prefix.
    fn entries(&self, pairs: Vec<KeyValue>) -> BTreeMap<String, Entry> {
        let entry = |pair: KeyValue| Some((relative(&pair, &self.prefix)?, entry(&pair)));
        pairs.into_iter().filter_map(entry).collect()
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn compare(&self, guard: Guard) -> Compare {
        match guard {
            Guard::Absent(key) => Compare::create_revision(self.key(&key), CompareOp::Equal, 0),
            Guard::Unmodified(key, at) => {
                Compare::mod_revision(self.key(&key), CompareOp::Equal, at as i64)
            }
            Guard::CreatedAt(key, at) => {
                Compare::create_revision(self.key(&key), CompareOp::Equal, at as i64)
            }
            // It must be true of each key below the prefix, and is true if there is none.
            Guard::NoneSince(prefix, at) => {
                let prefix = self.key(&prefix);
                Compare::mod_revision(prefix, CompareOp::Less, at as i64 + 1).with_prefix()
            }
        }
    }

    fn operation(&self, write: Write) -> TxnOp {
        match write {
            Write::Put { key, value, lease } => {
                let options = PutOptions::new().with_lease(lease.map_or(0, |lease| lease.0));
                TxnOp::put(self.key(&key), value, Some(options))
            }
            Write::Delete(key) => TxnOp::delete(self.key(&key), None),
            Write::DeletePrefix(prefix) => {
                TxnOp::delete(self.key(&prefix), Some(DeleteOptions::new().with_prefix()))
            }
        }
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot> {
        let prefixes = request::disjoint(prefixes);
        let mut tries = 0..LISTS;
        loop {
            match self.list_at_one_revision(&prefixes).await {
                // etcd compacted the revision before all of it was read, or another etcd answered.
                Err(StoreError::Compacted(_)) if tries.next().is_some() => {}
                Err(StoreError::Compacted(_)) => {
                    let text = "it is compacted faster than it can be read";
                    return Err(StoreError::Unavailable(text.to_owned()));
                }
                listed => return listed,
            }
        }
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<u64>,
    ) -> Result<Page> {
        let mut answer = self.below(prefix, after, limit, at).await?;
        let now = answer.header().map_or(0, |header| header.revision() as u64);
        Ok(Page {
            snapshot: Snapshot {
                revision: at.unwrap_or(now),
                entries: self.entries(answer.take_kvs()),
            },
            more: answer.more(),
        })
    }

    async fn count(&self, prefix: &str) -> Result<usize> {
        let options = GetOptions::new().with_prefix().with_count_only();
        let answer = self.range(prefix, self.key(prefix), options).await?;
        Ok(usize::try_from(answer.count()).unwrap_or_default())
    }

    async fn keys(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let end = behind(self.key(prefix));
        let mut keys = BTreeMap::new();
        let mut first = self.key(prefix);
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(KEYS)
                .with_keys_only();
            let mut answer = self.range(prefix, first, options).await?;
            let more = answer.more();
            let pairs = self.entries(answer.take_kvs()).into_iter();
            keys.extend(pairs.map(|(key, entry)| (key, entry.modified)));
            match keys.last_key_value() {
                Some((last, _)) if more => first = self.key(last) + "\0",
                _ => return Ok(keys),
            }
        }
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        request::check(&guards, &writes)?;
        let keys: Vec<String> = writes
            .iter()
            .map(|write| written(write).to_owned())
            .collect();
        let compares: Vec<_> = guards
            .into_iter()
            .map(|guard| self.compare(guard))
            .collect();
        let operations: Vec<_> = writes
            .into_iter()
            .map(|write| self.operation(write))
            .collect();
        let txn = Txn::new().when(compares).and_then(operations);
        let answer = self.txn(Repeat::Unsent, txn).await;
        let answer = answer.map_err(|error| denied_to("write", &keys, error))?;
        if !answer.succeeded() {
            return Err(StoreError::Refused);
        }
        Ok(revision(&answer))
    }

    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>> {
        let prefixes = request::watched(prefixes)?;
        let keys: Vec<_> = prefixes.iter().map(|prefix| self.key(prefix)).collect();
        let open = |connection| Opened::open(connection, self.prefix.clone(), keys.clone(), after);
        let opened = self.call(Repeat::Always, open).await?;
        Ok(Box::new(EtcdWatch {
            endpoints: Arc::clone(&self.endpoints),
            opened,
        }))
    }

    async fn create_lease(&self, ttl: Duration) -> Result<LeaseId> {
        // If the answer is lost, the new lease has no keys and ends by itself.
        let seconds = ttl.as_secs() as i64;
        let request = |connection: Arc<endpoints::Connection>| async move {
            Ok::<_, Failure>(LeaseId(connection.lease().grant(seconds, None).await?.id()))
        };
        self.call(Repeat::Always, request).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        let renewed = self
            .keep_alives
            .renew(&self.endpoints, &self.renewing, lease);
        renewed.await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.keep_alives.forget(lease);
        let request = |connection: Arc<endpoints::Connection>| async move {
            connection.lease().revoke(lease.0).await?;
            Ok(())
        };
        match self.call(Repeat::Always, request).await {
            Err(StoreError::LeaseLost) => Ok(()),
            answer => answer,
        }
    }
}

/// Returns how many keys like those fit into an answer of [`PART`] bytes.
fn at_once(entries: &BTreeMap<String, Entry>) -> usize {
    let size = |(key, entry): (&String, &Entry)| ENTRY + key.len() + entry.value.len();
    let bytes: usize = entries.iter().map(size).sum();
    let many = (PART * entries.len()).div_ceil(bytes.max(1));
    // Later values may be larger than the ones read so far.
    many.min(entries.len() * 8)
}

/// Returns the identity of the etcd that answered. A restored etcd is another one, and its
/// revisions mean something else.
fn cluster(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, ResponseHeader::cluster_id)
}

/// Returns the first key after all keys that start with that one, which ends in a letter or a
/// slash.
fn behind(prefix: String) -> Vec<u8> {
    let mut end = prefix.into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Returns the key, or prefix, that a write changes.
fn written(write: &Write) -> &str {
    match write {
        Write::Put { key, .. } | Write::Delete(key) | Write::DeletePrefix(key) => key,
    }
}

/// Adds to a denial which keys it was about, because etcd does not report them.
fn denied_to(verb: &str, keys: &[impl AsRef<str>], error: StoreError) -> StoreError {
    match error {
        StoreError::Denied(text) if text.contains("permission denied") => {
            let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
            StoreError::Denied(format!("{text} (this was to {verb} {})", keys.join(", ")))
        }
        error => error,
    }
}

fn revision(answer: &TxnResponse) -> u64 {
    answer.header().map_or(0, |header| header.revision() as u64)
}

/// Returns a key without the prefix. `None` if it is not text, because fleet writes only text.
fn relative(pair: &KeyValue, prefix: &str) -> Option<String> {
    let key = pair.key_str().ok()?;
    Some(key.strip_prefix(prefix)?.to_owned())
}

fn entry(pair: &KeyValue) -> Entry {
    Entry {
        value: pair.value().into(),
        created: pair.create_revision() as u64,
        modified: pair.mod_revision() as u64,
        lease: (pair.lease() != 0).then(|| LeaseId(pair.lease())),
    }
}
