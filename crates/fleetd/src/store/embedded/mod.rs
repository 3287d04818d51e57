//! A store inside this process: the whole registry of a single machine, and the one that tests run on.
//!
//! A commit is planned on the state as it is, put on disk, and only then made visible; commits take turns for
//! that, while readers never wait for the disk. Keys under a lease are not put on disk: the machines that
//! held them are gone after a restart.

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

/// A store in memory, with or without a file. Clones are the same store.
#[derive(Clone)]
pub struct Embedded(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Held from the plan of a commit until it is visible. Apart from `state`, which is never held while a
    /// commit is on its way to the disk.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// A commit landed. Wakes whoever waits in the order in which they came, so that simulations replay.
    landed: Notify,
    file: Option<SnapshotFile>,
}

/// A copy of a store at one moment, as `etcdctl snapshot save` makes it: keys, their revisions, and leases.
#[derive(Clone)]
pub struct Backup(State);

impl Backup {
    /// The store revision that it stands at.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// A new store in memory that begins as the copy, with leases that have their whole time again. `lease`: new ones come
    /// after that one, so that no two copies name different leases alike.
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
    /// A copy of it as it is.
    pub fn backup(&self) -> Backup {
        Backup(self.0.state().clone())
    }

    /// Does to leases what a restart of etcd does: each has its whole time again.
    pub fn extend_leases(&self) {
        self.0.state().extend_leases(Instant::now());
    }

    /// An empty store that is gone with this process.
    pub fn in_memory() -> Self {
        Self::new(None, None)
    }

    /// The store that this file keeps; a file that does not exist is an empty store. Takes the file for this
    /// process: a second `open` fails for as long as the first store lives. Blocks.
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

    /// Makes a planned change in its turn. Once begun it ends, even if the caller no longer waits: a disk
    /// that is ahead of the memory would be overwritten by the next commit.
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

    /// Blocks while the disk is written. One at a time: the caller has the turn.
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
                // Only the revision is new to the disk. A full one must not keep keys whose lease is over.
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
        // First the lease, so that no commit can add a key to it meanwhile.
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
            // From here on, so that no commit falls between look and wait.
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
