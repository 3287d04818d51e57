//! The key-value seam below the registry: what fleet needs of etcd, and nothing more.
//!
//! Keys are text, relative to the configured prefix. A *store revision* counts the commits of the whole
//! store; it has nothing to do with the revisions of a unit.
//!
//! [`EtcdStore`] keeps the keys in etcd, [`Embedded`] in this process. One suite of laws, `tests/it/store/`,
//! runs on both.

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

/// Why the store did not do what it was asked, by what the caller does about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. Normal; keep what runs, try again. A commit that
    /// ended so may have been applied.
    #[error("registry unavailable: {0}")]
    Unavailable(String),
    /// A watch asked for commits the store no longer keeps. Normal after a long absence; list again.
    #[error("registry history before revision {0} is compacted")]
    Compacted(u64),
    /// The lease is gone, and its keys with it. Take a new one.
    #[error("lease lost")]
    LeaseLost,
    /// A guard did not hold: somebody else was first. Read again and decide again.
    #[error("refused: the registry has changed meanwhile")]
    Refused,
    /// It does not let fleetd in, or not do this: password, certificate, role. It takes an operator; what runs is kept.
    #[error("the registry refuses this fleetd: {0}")]
    Denied(String),
    /// It will never take this: too large, or no room. Report it; a retry does not help.
    #[error("rejected by the registry: {0}")]
    Rejected(String),
}

/// The result of every store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A key's value and where it stands in the store's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes.
    pub value: Arc<[u8]>,
    /// The commit that made the key.
    pub created: u64,
    /// The commit that wrote this value.
    pub modified: u64,
    /// The lease that the key lives under.
    pub lease: Option<LeaseId>,
}

/// Entries by key, all as they were at one store revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store revision.
    pub revision: u64,
    /// What the keys held then.
    pub entries: BTreeMap<String, Entry>,
}

/// A part of what lies below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Its entries, and the store revision that they are of.
    pub snapshot: Snapshot,
    /// Whether there are entries behind its last one.
    pub more: bool,
}

/// A lease: its keys live as long as it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// What must hold for a commit to land. At most 128 a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist.
    Absent(String),
    /// The key was last written by that commit.
    Unmodified(String, u64),
    /// The key exists and was made by that commit, whatever was written since: fences a claim.
    CreatedAt(String, u64),
    /// No key that starts with the prefix was written after that revision. Keys that went are not missed.
    NoneSince(String, u64),
}

/// One change of a commit. At most 128 and 1.5 MiB a commit, and no key that is put and also changed by
/// another write of the same commit: the limits of etcd, held by both stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key. Without a lease the key stays for good, even where it had one.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The lease it lives under.
        lease: Option<LeaseId>,
    },
    /// Removes a key; one that is not there is no error.
    Delete(String),
    /// Removes every key below a prefix.
    DeletePrefix(String),
}

/// One change that a watch saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was set.
    Put(String, Entry),
    /// A key went: deleted, or its lease ended.
    Delete(String),
}

impl Change {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        let (Self::Put(key, _) | Self::Delete(key)) = self;
        key
    }
}

/// All changes of one commit to one watched prefix, or to several. A commit that touches several prefixes
/// may come as one batch for each, with batches of other commits in between: whole and in order for each
/// prefix, as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The commit.
    pub revision: u64,
    /// Its changes.
    pub changes: Vec<Change>,
}

/// A running watch. It ends with an error, after which the reader lists and watches again; it never skips a
/// commit in silence.
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next batch. Safe to cancel.
    async fn next(&mut self) -> Result<Batch>;
}

/// The seam. The laws that both stores keep are in `tests/it/store/`.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads all keys that start with any of the prefixes, at one revision. A whole key is a prefix too.
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot>;

    /// Reads up to `limit` keys that start with the prefix, in order, from the first one behind `after` on: as they were
    /// at the store revision `at`, or else as they are. Where the store no longer keeps that revision, it answers
    /// [`StoreError::Compacted`]. So a listing that is larger than anybody's memory is still of one revision.
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

    /// How many keys start with the prefix.
    async fn count(&self, prefix: &str) -> Result<usize> {
        Ok(self.list(&[prefix]).await?.entries.len())
    }

    /// The keys that start with the prefix, each with the commit that wrote it, without their values. Where they are many,
    /// they are not all as they were at one moment.
    async fn keys(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let entries = self.list(&[prefix]).await?.entries.into_iter();
        Ok(entries.map(|(key, entry)| (key, entry.modified)).collect())
    }

    /// Makes all writes if all guards hold, else none of them. Answers the new revision, or the current one
    /// where nothing changed.
    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64>;

    /// Follows the prefixes from the first commit after that revision. Returns once the store has accepted
    /// the watch; where it no longer keeps those commits, this or the first `next` answers
    /// [`StoreError::Compacted`].
    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>>;

    /// Takes a lease that ends unless renewed within `ttl` (whole seconds, 2 at least).
    async fn create_lease(&self, ttl: Duration) -> Result<LeaseId>;

    /// Renews a lease for another `ttl`.
    async fn renew(&self, lease: LeaseId) -> Result<()>;

    /// Ends a lease and removes its keys; one that is gone is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;
}
