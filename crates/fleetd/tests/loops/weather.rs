//! A store seen through bad weather: away, silent, or swapped for another one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::{
    Batch, Embedded, Guard, LeaseId, Result, Snapshot, Store, StoreError, Watch, Write,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// What etcd's client waits for an answer.
const CALL: Duration = Duration::from_secs(3);

/// What calls meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sky {
    Clear,
    /// Every call fails at once, and watches break.
    Away,
    /// Calls time out, and watches stay silent.
    Silent,
    /// Calls and batches take half a second.
    Slow,
}

#[derive(Clone)]
struct Outlook {
    sky: Sky,
    store: Embedded,
    /// Counts swaps: a watch of the store before is lost, and so is one after a list of it.
    swaps: u32,
    listed: u32,
}

/// One machine's way to the registry. Clones are the same way.
#[derive(Clone)]
pub(crate) struct Weather(Arc<watch::Sender<Outlook>>);

impl Weather {
    pub(crate) fn over(store: Embedded) -> Self {
        let outlook = Outlook {
            sky: Sky::Clear,
            store,
            swaps: 0,
            listed: 0,
        };
        Self(Arc::new(watch::Sender::new(outlook)))
    }

    pub(crate) fn turn(&self, sky: Sky) {
        self.0.send_modify(|outlook| outlook.sky = sky);
    }

    /// From now on another store answers.
    pub(crate) fn swap(&self, store: &Embedded) {
        self.0.send_modify(|outlook| {
            outlook.store = store.clone();
            outlook.swaps += 1;
        });
    }

    async fn pass(&self) -> Result<Embedded> {
        Ok(self.look().await?.store)
    }

    /// The store that answers, once the way to it is passable.
    async fn look(&self) -> Result<Outlook> {
        let away = || StoreError::Unavailable("bad weather".to_owned());
        let mut outlook = self.0.subscribe();
        let passable = outlook.wait_for(|outlook| outlook.sky != Sky::Silent);
        let outlook = match timeout(CALL, passable).await {
            Ok(Ok(outlook)) => outlook.clone(),
            _ => return Err(away()),
        };
        match outlook.sky {
            Sky::Away => Err(away()),
            Sky::Slow => {
                sleep(Duration::from_millis(500)).await;
                Ok(outlook)
            }
            Sky::Clear | Sky::Silent => Ok(outlook),
        }
    }
}

#[async_trait]
impl Store for Weather {
    async fn list(&self, prefixes: &[&str]) -> Result<Snapshot> {
        let seen = self.look().await?;
        self.0.send_modify(|outlook| outlook.listed = seen.swaps);
        seen.store.list(prefixes).await
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        self.pass().await?.commit(guards, writes).await
    }

    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>> {
        let swaps = self.0.borrow().listed;
        Ok(Box::new(Sight {
            watch: self.pass().await?.watch(prefixes, after).await?,
            outlook: self.0.subscribe(),
            swaps,
            late: None,
        }))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.pass().await?.grant(ttl).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        self.pass().await?.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.pass().await?.revoke(lease).await
    }
}

struct Sight {
    watch: Box<dyn Watch>,
    outlook: watch::Receiver<Outlook>,
    swaps: u32,
    /// A batch on its way.
    late: Option<Batch>,
}

#[async_trait]
impl Watch for Sight {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            let (sky, swaps) = {
                let outlook = self.outlook.borrow_and_update();
                (outlook.sky, outlook.swaps)
            };
            if sky == Sky::Away || swaps != self.swaps {
                return Err(StoreError::Unavailable("the watch broke".to_owned()));
            }
            let slow = sky == Sky::Slow;
            tokio::select! {
                biased;
                _ = self.outlook.changed() => {}
                () = sleep(Duration::from_millis(500)), if slow && self.late.is_some() => {
                    return self.late.take().ok_or(StoreError::LeaseLost);
                }
                () = std::future::ready(()), if sky == Sky::Clear && self.late.is_some() => {
                    return self.late.take().ok_or(StoreError::LeaseLost);
                }
                batch = self.watch.next(), if sky != Sky::Silent && self.late.is_none() => {
                    self.late = Some(batch?);
                }
            }
        }
    }
}
