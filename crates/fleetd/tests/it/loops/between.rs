//! A store in which something happens between a list and its answer.

use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::{Embedded, Guard, LeaseId, Result, Snapshot, Store, Watch, Write};
use futures_util::future::BoxFuture;

/// What happens.
type Act = Box<dyn Fn(Embedded) -> BoxFuture<'static, ()> + Send + Sync>;

pub(crate) struct Between {
    store: Embedded,
    act: Act,
}

impl Between {
    pub(crate) fn new(
        store: &Embedded,
        act: impl Fn(Embedded) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            store: store.clone(),
            act: Box::new(act),
        }
    }
}

#[async_trait]
impl Store for Between {
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot> {
        let listed = self.store.list(prefixes).await;
        (self.act)(self.store.clone()).await;
        listed
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        self.store.commit(guards, writes).await
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
