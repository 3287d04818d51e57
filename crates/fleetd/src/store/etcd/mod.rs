//! The store of a cluster: etcd, version 3.
//!
//! `endpoints` decides which member is asked, `failure` what a failed request means, `watch` and `lease` keep
//! the two streams that outlive a request. Nothing but pings and lease renewals is sent while nothing changes.

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

/// How many values are read first, below all prefixes: all of them, of what most readers want. As many of the largest that
/// there may be, 1.5 MiB, still fit into one message. Of more it takes several answers.
const FIRST: usize = 160;

/// How many are read of each prefix at least: of many units at once, all older revisions, which are half as large.
const AT_LEAST: usize = 12;

/// How many keys are read at once where only keys are wanted: about a megabyte of them.
const KEYS: i64 = 8_000;

/// How large the later answers are to be, in bytes.
const PART: usize = 4 << 20;

/// What an entry takes beside its key and value, about.
const ENTRY: usize = 100;

/// How often a list is begun anew because etcd has forgotten the revision that it was of.
const LISTS: usize = 3;

/// A store in etcd. One connection, to one endpoint at a time, serves all requests and watches.
pub struct EtcdStore {
    endpoints: Arc<Endpoints>,
    prefix: String,
    keep_alives: Arc<KeepAlives>,
    patience: Patience,
    /// With renewals of leases.
    renewing: Patience,
}

impl EtcdStore {
    /// A store for these settings. Connects with the first request, and reads the files that they name then.
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

    /// The same store, over the same connection, for an agent: one of thousands, which waits as long as etcd works on a request.
    /// A renewal that is late must leave time for another; etcd answers it within a second, however busy it is.
    pub fn for_agent(&self) -> Self {
        self.with(Patience::growing(3), Patience::growing(2))
    }

    /// The same for an engine, which is to be relieved soon where it does not get through.
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

    /// Reads the first of what is below each prefix in one request, which says the revision that the rest is read at.
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

    /// One range below the prefix; see [`Store::page`].
    async fn below(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<u64>,
    ) -> Result<GetResponse> {
        let first = match after {
            // The first key that can stand behind it.
            Some(after) => self.key(after) + "\0",
            None => self.key(prefix),
        };
        let options = GetOptions::new()
            .with_range(behind(self.key(prefix)))
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .with_revision(at.map_or(0, |at| at as i64));
        self.range(prefix, first, options).await
    }

    /// What fleet wrote of that, by keys without the prefix.
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
            // It holds for each key below the prefix, and where there is none.
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
                // etcd has forgotten the revision before all of it was read, or is another one.
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
        // A grant whose answer is lost leaves a lease without keys, which ends by itself.
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

/// How many keys make an answer of [`PART`] if they are like those.
fn at_once(entries: &BTreeMap<String, Entry>) -> usize {
    let size = |(key, entry): (&String, &Entry)| ENTRY + key.len() + entry.value.len();
    let bytes: usize = entries.iter().map(size).sum();
    let many = (PART * entries.len()).div_ceil(bytes.max(1));
    // Those behind may be larger than those before.
    many.min(entries.len() * 8)
}

/// Which etcd answered: one that was restored is another one, whose revisions tell other things.
fn cluster(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, ResponseHeader::cluster_id)
}

/// The first key behind all that start with that one, which ends in a letter or a slash.
fn behind(prefix: String) -> Vec<u8> {
    let mut end = prefix.into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The key, or prefix, that a write changes.
fn written(write: &Write) -> &str {
    match write {
        Write::Put { key, .. } | Write::Delete(key) | Write::DeletePrefix(key) => key,
    }
}

/// Says of a denial what it was about, which etcd does not.
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

/// A key without the prefix. Whatever is no text there was not written by fleet.
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
