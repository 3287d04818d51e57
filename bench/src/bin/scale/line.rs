//! A machine's line to etcd: the real store on a connection of its own. The line counts calls, and
//! can be cut.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::keys;
use fleetd::store::{
    Batch, EtcdConfig, EtcdStore, Guard, LeaseId, Result, Snapshot, Store, StoreError, Watch, Write,
};
use tokio::sync::watch;

use crate::awaited::{Roll, Stage};

/// The counts of all lines together.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) commits: AtomicU64,
    /// The calls that failed without a response.
    pub(crate) errors: AtomicU64,
    /// The open watches.
    pub(crate) watches: AtomicUsize,
    /// The machines that follow the registry, and those present in it. `None` before
    /// [`Self::lay_out`].
    pub(crate) rolls: Mutex<Option<Arc<[Roll; 2]>>>,
}

impl Tally {
    /// Starts to await that every machine follows the registry (first) and is present in it
    /// (second).
    pub(crate) fn lay_out(&self, count: usize) -> Arc<[Roll; 2]> {
        let rolls = Arc::new([Roll::of_all(count), Roll::of_all(count)]);
        *self.rolls.lock().unwrap_or_else(PoisonError::into_inner) = Some(rolls.clone());
        rolls
    }

    fn tick(&self, which: usize, number: usize) {
        if let Some(rolls) = &*self.rolls.lock().unwrap_or_else(PoisonError::into_inner) {
            rolls[which].tick(number);
        }
    }
}

/// The state that all lines share.
#[derive(Clone)]
pub(crate) struct Lines {
    pub(crate) config: EtcdConfig,
    pub(crate) tally: Arc<Tally>,
    pub(crate) stage: Stage,
    /// Whether the lines are cut.
    pub(crate) cut: watch::Receiver<bool>,
}

/// One line.
pub(crate) struct Line {
    lines: Lines,
    number: usize,
    store: Mutex<Arc<EtcdStore>>,
    /// The base of its report in the registry.
    base: Mutex<String>,
}

impl Line {
    pub(crate) fn new(lines: Lines, number: usize) -> anyhow::Result<Self> {
        let store = Mutex::new(Arc::new(EtcdStore::new(lines.config.clone())?.for_agent()));
        Ok(Self {
            lines,
            number,
            store,
            base: Mutex::default(),
        })
    }

    /// Returns the store. Fails while the line is cut; the connection is closed.
    fn store(&self) -> Result<Arc<EtcdStore>> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.lines.cut.borrow() {
            if let Ok(fresh) = EtcdStore::new(self.lines.config.clone()) {
                *store = Arc::new(fresh.for_agent());
            }
            return Err(StoreError::Unavailable("the line is cut".to_owned()));
        }
        Ok(store.clone())
    }

    /// Makes a call unless the line is cut before it ends.
    async fn pass<T>(&self, call: impl AsyncFnOnce(Arc<EtcdStore>) -> Result<T>) -> Result<T> {
        let store = self.store()?;
        let mut cut = self.lines.cut.clone();
        let result = tokio::select! {
            biased;
            _ = cut.wait_for(|cut| *cut) => {
                return Err(StoreError::Unavailable("the line was cut".to_owned()));
            }
            result = call(store) => result,
        };
        if matches!(result, Err(StoreError::Unavailable(_))) {
            self.lines.tally.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn told(&self, writes: &[Write]) {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = None;
        for write in writes {
            let Write::Put { key, value, .. } = write else {
                continue;
            };
            let text = || std::str::from_utf8(value).unwrap_or_default();
            if keys::report_base_of(key).is_some() {
                *base = text().to_owned();
            } else if key.starts_with(keys::REPORTS) {
                changes = Some(text());
            }
            if key.starts_with(keys::MACHINES) {
                self.lines.tally.tick(1, self.number);
            }
        }
        if let Some(changes) = changes.filter(|_| self.lines.stage.awaits()) {
            self.lines.stage.reported(self.number, changes, &base);
        }
    }
}

#[async_trait]
impl Store for Line {
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot> {
        self.pass(async |store| store.list(prefixes).await).await
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        let reports: Vec<Write> = writes
            .iter()
            .filter(|write| matches!(write, Write::Put { key, .. } if key.starts_with(keys::REPORTS) || key.starts_with(keys::MACHINES)))
            .cloned()
            .collect();
        let done = self
            .pass(async |store| store.commit(guards, writes).await)
            .await;
        if done.is_ok() {
            self.lines.tally.commits.fetch_add(1, Ordering::Relaxed);
            self.told(&reports);
        }
        done
    }

    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>> {
        let watch = self
            .pass(async |store| store.watch(prefixes, after).await)
            .await?;
        let tally = self.lines.tally.clone();
        tally.watches.fetch_add(1, Ordering::Relaxed);
        tally.tick(0, self.number);
        Ok(Box::new(Followed {
            watch,
            cut: self.lines.cut.clone(),
            tally,
        }))
    }

    async fn create_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.pass(async |store| store.create_lease(ttl).await).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        self.pass(async |store| store.renew(lease).await).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.pass(async |store| store.revoke(lease).await).await
    }
}

/// A watch over the line.
struct Followed {
    watch: Box<dyn Watch>,
    cut: watch::Receiver<bool>,
    tally: Arc<Tally>,
}

#[async_trait]
impl Watch for Followed {
    async fn next(&mut self) -> Result<Batch> {
        tokio::select! {
            biased;
            _ = self.cut.wait_for(|cut| *cut) => Err(StoreError::Unavailable("the line was cut".to_owned())),
            next = self.watch.next() => next,
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tally.watches.fetch_sub(1, Ordering::Relaxed);
    }
}
