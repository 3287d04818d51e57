//! A store whose answers to a leader's grants get lost, or that carries them out late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::keys;
use fleetd::store::{Embedded, Guard, LeaseId, Result, Snapshot, Store, StoreError, Watch, Write};
use tokio::time::sleep;

/// What becomes of a commit that nobody gets an answer to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// It was made.
    Answer,
    /// It is made so long after the caller gave up.
    Late(Duration),
}

/// Loses every commit of grants, counted, whose number that says; all else passes.
#[derive(Clone)]
pub(crate) struct Mail {
    pub(crate) store: Embedded,
    pub(crate) loses: fn(usize) -> Option<Loss>,
    /// Commits of grants.
    pub(crate) seen: Arc<AtomicUsize>,
    /// Those of them that were carried out late and refused.
    pub(crate) refused: Arc<AtomicUsize>,
    /// Commits that no claim guards.
    pub(crate) unguarded: Arc<AtomicUsize>,
}

impl Mail {
    pub(crate) fn to(store: &Embedded, loses: fn(usize) -> Option<Loss>) -> Self {
        Self {
            store: store.clone(),
            loses,
            seen: Arc::default(),
            refused: Arc::default(),
            unguarded: Arc::default(),
        }
    }
}

#[async_trait]
impl Store for Mail {
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot> {
        self.store.list(prefixes).await
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        let is_claim = |guard: &Guard| matches!(guard, Guard::CreatedAt(key, _) | Guard::Absent(key) if key == keys::LEADER);
        if !guards.iter().any(is_claim) {
            self.unguarded.fetch_add(1, Ordering::Relaxed);
        }
        let grants = |write: &Write| matches!(write, Write::Put { key, .. } if key.starts_with(keys::GRANTS));
        if !writes.iter().any(grants) {
            return self.store.commit(guards, writes).await;
        }
        let lost = StoreError::Unavailable("the answer was lost".to_owned());
        match (self.loses)(self.seen.fetch_add(1, Ordering::Relaxed)) {
            None => self.store.commit(guards, writes).await,
            Some(Loss::Answer) => {
                self.store.commit(guards, writes).await?;
                Err(lost)
            }
            Some(Loss::Late(time)) => {
                let (store, refused) = (self.store.clone(), self.refused.clone());
                tokio::spawn(async move {
                    sleep(time).await;
                    if store.commit(guards, writes).await.is_err() {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                });
                Err(lost)
            }
        }
    }

    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>> {
        self.store.watch(prefixes, after).await
    }

    async fn create_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.store.create_lease(ttl).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        self.store.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.store.revoke(lease).await
    }
}
