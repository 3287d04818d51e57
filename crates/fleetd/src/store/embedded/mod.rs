//! A store inside this process: the whole registry of a single machine, and the store of most
//! tests.
//!
//! A commit is planned on the present state, written to disk, and only then made visible. Commits
//! do so one after the other, while readers never wait for the disk. Keys under a lease are not
//! written to disk, because their machines are gone after a restart.

mod snapshot_file;
mod state;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

pub use self::snapshot_file::OpenError;
use self::snapshot_file::SnapshotFile;
use self::state::{Plan, State};
use super::{Batch, Guard, LeaseId, Result, Snapshot, Store, StoreError, Watch, Write, request};

/// A store in memory, with or without a file. All clones are the same store.
#[derive(Clone)]
pub struct Embedded(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Held from the plan of a commit until it is visible. It is separate from `state`, which is
    /// never held while a commit is written to disk.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// A notice that a commit landed. It wakes waiting tasks in the order in which they came, so
    /// that simulations replay.
    landed: Notify,
    file: Option<SnapshotFile>,
}

/// A copy of a store at one moment, like one of `etcdctl snapshot save`: keys, their revisions, and
/// leases.
#[derive(Clone)]
pub struct Backup(State);

impl Backup {
    /// Returns the store revision of the copy.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// Returns a new store in memory with the content of the copy. Its leases have their full time
    /// again. New leases come after `lease`, so that two copies never give different leases the
    /// same name.
    pub fn restore(&self, lease: i64) -> Embedded {
        let mut state = self.0.clone();
        state.skip_leases(lease);
        let leases = state.extend_leases(Instant::now());
        let store = Embedded(Arc::new(Shared {
            landed: Notify::new(),
            state: Mutex::new(state),
            turn: Arc::default(),
            file: None,
        }));
        for lease in leases {
            tokio::spawn(expire(Arc::downgrade(&store.0), lease));
        }
        store
    }
}

impl Embedded {
    /// Returns a copy of the store.
    pub fn backup(&self) -> Backup {
        Backup(self.0.state().clone())
    }

    /// Gives each lease its full time again, as a restart of etcd does.
    pub fn extend_leases(&self) {
        self.0.state().extend_leases(Instant::now());
    }

    /// Returns an empty store that ends with this process.
    pub fn in_memory() -> Self {
        Self::new(None, None)
    }

    /// Opens the store in this file. A file that does not exist is an empty store. The file belongs
    /// to this process: a second `open` fails while the first store lives. Blocks.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (file, snapshot) = SnapshotFile::open(path)?;
        Ok(Self::new(Some(file), snapshot))
    }

    fn new(file: Option<SnapshotFile>, snapshot: Option<Snapshot>) -> Self {
        let state = State::after_restart(snapshot);
        Self(Arc::new(Shared {
            landed: Notify::new(),
            state: Mutex::new(state),
            turn: Arc::default(),
            file,
        }))
    }

    /// Makes a planned change after those before it. Once begun it ends, even if the caller stops
    /// waiting: the next commit would overwrite a disk that is ahead of the memory.
    async fn make<P>(&self, plan: P) -> Result<u64>
    where
        P: FnOnce(&State) -> Result<Plan> + Send + 'static,
    {
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        if self.0.file.is_none() {
            return self.0.make(plan);
        }
        let shared = Arc::clone(&self.0);
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            shared.make(plan)
        });
        made.await
            .unwrap_or_else(|gone| Err(StoreError::Unavailable(format!("writing it down: {gone}"))))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds this")
    }

    /// Makes a planned change, and blocks while the disk is written. The caller must hold `turn`.
    fn make(&self, plan: impl FnOnce(&State) -> Result<Plan>) -> Result<u64> {
        let (plan, on_disk) = {
            let state = self.state();
            let plan = plan(&state)?;
            if plan.is_empty() {
                return Ok(state.revision);
            }
            let file = self.file.as_ref();
            let on_disk =
                file.map(|file| (file, state.lasting_after(&plan), state.is_lasting(&plan)));
            (plan, on_disk)
        };
        if let Some((file, snapshot, is_lasting)) = on_disk {
            match file.save(&snapshot) {
                // The only thing to store is the revision. A full disk must not keep keys whose
                // lease has ended.
                Err(error) if !is_lasting => {
                    tracing::warn!("a change of leased keys is in memory alone: {error}");
                }
                saved => saved?,
            }
        }
        let revision = plan.revision;
        self.state().apply(plan);
        self.landed.notify_waiters();
        Ok(revision)
    }
}

/// Ends a lease when its time is up, unless it was revoked or the store is gone.
async fn expire(store: Weak<Shared>, lease: LeaseId) {
    while let Some(shared) = store.upgrade() {
        let Some(ends) = shared.state().end_of(lease) else {
            return;
        };
        if ends <= Instant::now() {
            let store = Embedded(shared);
            if let Err(error) = store.revoke(lease).await {
                tracing::warn!("a lease ended, but its keys could not be removed: {error}");
            }
            return;
        }
        drop(shared);
        sleep_until(ends).await;
    }
}

#[async_trait]
impl Store for Embedded {
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot> {
        Ok(self.0.state().list(&request::disjoint(prefixes)))
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        request::check(&guards, &writes)?;
        let now = Instant::now();
        self.make(move |state| state.plan(&guards, writes, now))
            .await
    }

    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>> {
        Ok(Box::new(EmbeddedWatch {
            shared: Arc::clone(&self.0),
            prefixes: request::watched(prefixes)?,
            after,
        }))
    }

    async fn create_lease(&self, ttl: Duration) -> Result<LeaseId> {
        let lease = self.0.state().create_lease(ttl, Instant::now());
        tokio::spawn(expire(Arc::downgrade(&self.0), lease));
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        self.0.state().renew(lease, Instant::now())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        // The lease is closed first, so that no commit can add a key to it meanwhile.
        self.0.state().close(lease);
        self.make(move |state| Ok(state.plan_end_of(lease))).await?;
        Ok(())
    }
}

struct EmbeddedWatch {
    shared: Arc<Shared>,
    prefixes: Vec<String>,
    after: u64,
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            // Created before the check, so that no commit is missed between check and wait.
            let landed = self.shared.landed.notified();
            let next = self
                .shared
                .state()
                .next_batch(&self.prefixes, &mut self.after)?;
            if let Some(batch) = next {
                return Ok(batch);
            }
            landed.await;
        }
    }
}
