//! The key-value store below the registry: the few operations of etcd that fleet needs.
//!
//! Keys are text, relative to the configured prefix. A *store revision* counts the commits of the
//! whole store. It is unrelated to the revisions of a unit.
//!
//! [`EtcdStore`] keeps the keys in etcd, [`Embedded`] in this process. One suite of laws,
//! `tests/it/store/`, runs on both.

mod embedded;
mod etcd;
mod request;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::embedded::{Backup, Embedded, OpenError};
pub use self::etcd::{ConfigError, EtcdConfig, EtcdStore};
pub(crate) use self::request::fits;

/// Why the store did not do a request. Each variant needs another reaction of the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, or did not answer in time. Normal: keep what runs, and try
    /// again. The commit may have been applied.
    #[error("registry unavailable: {0}")]
    Unavailable(String),
    /// The store no longer keeps the commits that a watch asked for. Normal after a long absence:
    /// list again.
    #[error("registry history before revision {0} is compacted")]
    Compacted(u64),
    /// The lease is gone, and its keys with it. Take a new one.
    #[error("lease lost")]
    LeaseLost,
    /// A guard did not hold because another commit came first. Read again and decide again.
    #[error("refused: the registry has changed meanwhile")]
    Refused,
    /// The store refuses the login or the operation: password, certificate, role. An operator must
    /// act, and what runs is kept.
    #[error("the registry refuses this fleetd: {0}")]
    Denied(String),
    /// The store will never accept this: it is too large, or there is no room. Report it; a retry
    /// does not help.
    #[error("rejected by the registry: {0}")]
    Rejected(String),
}

/// The result of every store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A key's value, and its place in the store's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes of the value.
    pub value: Arc<[u8]>,
    /// The commit that created the key.
    pub created: u64,
    /// The commit that wrote this value.
    pub modified: u64,
    /// The lease of the key, if it has one.
    pub lease: Option<LeaseId>,
}

/// Entries by key, all at one store revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store revision.
    pub revision: u64,
    /// The entries at that revision.
    pub entries: BTreeMap<String, Entry>,
}

/// A part of the entries below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Its entries, and their store revision.
    pub snapshot: Snapshot,
    /// Whether there are entries after its last one.
    pub more: bool,
}

/// A lease. Its keys live as long as it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A condition under which a commit lands. A commit has at most 128.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist.
    Absent(String),
    /// The key was last written by that commit.
    Unmodified(String, u64),
    /// The key exists and was created by that commit, whatever was written since. Fences a claim.
    CreatedAt(String, u64),
    /// No key that starts with the prefix was written after that revision. Removed keys are not
    /// detected.
    NoneSince(String, u64),
}

/// One change in a commit. A commit has at most 128 changes and 1.5 MiB. A key may not be put and
/// also changed by another write. These are the limits of etcd, and both stores enforce them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key. Without a lease the key stays for good, even if it had one before.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The lease of the key.
        lease: Option<LeaseId>,
    },
    /// Removes a key. A missing key is no error.
    Delete(String),
    /// Removes every key below a prefix.
    DeletePrefix(String),
}

/// One change that a watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was set.
    Put(String, Entry),
    /// A key was removed, or its lease ended.
    Delete(String),
}

impl Change {
    /// Returns the key that changed.
    pub fn key(&self) -> &str {
        let (Self::Put(key, _) | Self::Delete(key)) = self;
        key
    }
}

/// All changes of one commit to one or several watched prefixes. A commit to several prefixes may
/// come as one batch for each, with batches of other commits in between. For each prefix the
/// batches are complete and in order, as in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The commit.
    pub revision: u64,
    /// Its changes.
    pub changes: Vec<Change>,
}

/// A running watch. It ends with an error, after which the reader lists and watches again. It never
/// skips a commit silently.
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next batch. Safe to cancel.
    async fn next(&mut self) -> Result<Batch>;
}

/// The store interface. The laws of both stores are in `tests/it/store/`.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads all keys that start with any of the prefixes, at one revision. A whole key is a prefix
    /// too.
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot>;

    /// Reads up to `limit` keys that start with the prefix, in order, beginning after `after`. `at`
    /// is the store revision to read, `None` for the present one. Returns [`StoreError::Compacted`]
    /// if the store no longer keeps that revision. So a listing that exceeds the memory is still of
    /// one revision.
    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<u64>,
    ) -> Result<Page> {
        let mut snapshot = self.list(&[prefix]).await?;
        if at.is_some_and(|at| at != snapshot.revision) {
            return Err(StoreError::Compacted(snapshot.revision));
        }
        if let Some(after) = after {
            snapshot.entries.retain(|key, _| key.as_str() > after);
        }
        let behind = snapshot.entries.keys().nth(limit).cloned();
        let more = behind.map(|key| snapshot.entries.split_off(&key)).is_some();
        Ok(Page { snapshot, more })
    }

    /// Returns the number of keys that start with the prefix.
    async fn count(&self, prefix: &str) -> Result<usize> {
        Ok(self.list(&[prefix]).await?.entries.len())
    }

    /// Reads the keys that start with the prefix, each with the commit that wrote it, without their
    /// values. Many keys may not be read at one moment.
    async fn keys(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let entries = self.list(&[prefix]).await?.entries.into_iter();
        Ok(entries.map(|(key, entry)| (key, entry.modified)).collect())
    }

    /// Makes all writes if all guards hold, else none of them. Returns the new revision, or the
    /// current one if nothing changed.
    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64>;

    /// Follows the prefixes from the first commit after that revision. Returns once the store has
    /// accepted the watch. If the store no longer keeps those commits, this or the first `next`
    /// returns [`StoreError::Compacted`].
    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>>;

    /// Creates a lease that ends unless renewed within `ttl` (whole seconds, at least 2).
    async fn create_lease(&self, ttl: Duration) -> Result<LeaseId>;

    /// Renews a lease for another `ttl`.
    async fn renew(&self, lease: LeaseId) -> Result<()>;

    /// Ends a lease and removes its keys. A missing lease is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;
}
