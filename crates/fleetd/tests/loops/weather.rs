//! A store seen through bad weather: away, silent, or swapped for another one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::{
    Batch, Embedded, Guard, LeaseId, Result, Snapshot, Store, StoreError, Watch, Write,
};
use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::chance::Chance;

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
    /// Commits are made, and nobody hears so.
    Unanswered,
    /// Commits are made some seconds after the caller gave up.
    Late,
}

/// How late a commit is made when commits are late.
const LATE: Duration = Duration::from_secs(4);

#[derive(Clone)]
struct Outlook {
    sky: Sky,
    store: Embedded,
    /// Counts swaps: a watch of the store before is lost, and so is one after a list of it.
    swaps: u32,
    listed: u32,
    /// Counts what watches lost by it.
    compactions: u32,
    /// Each prefix is watched by itself, as etcd does it, and what it shows is late by chance.
    skew: Option<u64>,
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
            compactions: 0,
            skew: None,
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

    /// From now on watches tell of each prefix by itself, some of it late.
    pub(crate) fn skew(&self, seed: u64) {
        self.0.send_modify(|outlook| outlook.skew = Some(seed));
    }

    /// What watches have not shown yet, they have lost.
    pub(crate) fn compact(&self) {
        self.0.send_modify(|outlook| outlook.compactions += 1);
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
            Sky::Clear | Sky::Silent | Sky::Unanswered | Sky::Late => Ok(outlook),
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
        let Outlook { sky, store, .. } = self.look().await?;
        let lost = || StoreError::Unavailable("the answer was lost".to_owned());
        match sky {
            Sky::Unanswered => {
                let _ = store.commit(guards, writes).await;
                Err(lost())
            }
            Sky::Late => {
                tokio::spawn(async move {
                    sleep(LATE).await;
                    let _ = store.commit(guards, writes).await;
                });
                sleep(CALL).await;
                Err(lost())
            }
            _ => store.commit(guards, writes).await,
        }
    }

    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>> {
        let (swaps, compactions, skew) = {
            let outlook = self.0.borrow();
            (outlook.listed, outlook.compactions, outlook.skew)
        };
        let store = self.pass().await?;
        let together = [prefixes];
        let apart: Vec<&[&str]> = prefixes.chunks(1).collect();
        let parts = if skew.is_some() {
            &apart[..]
        } else {
            &together
        };
        let mut streams = Vec::new();
        for part in parts {
            let watch = store.watch(part, after).await?;
            streams.push(Stream { watch, late: None });
        }
        Ok(Box::new(Sight {
            streams,
            outlook: self.0.subscribe(),
            swaps,
            compactions,
            chance: skew.map(|seed| Chance::of(seed ^ after)),
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
    streams: Vec<Stream>,
    outlook: watch::Receiver<Outlook>,
    swaps: u32,
    compactions: u32,
    chance: Option<Chance>,
}

struct Stream {
    watch: Box<dyn Watch>,
    /// A batch on its way, and when it is here.
    late: Option<(Instant, Batch)>,
}

impl Stream {
    fn arrived(&mut self, now: Instant) -> Option<Batch> {
        let late = self.late.take_if(|(at, _)| *at <= now);
        late.map(|(_, batch)| batch)
    }
}

impl Sight {
    fn delay(&mut self, sky: Sky) -> Duration {
        let skew = self.chance.as_mut().map_or(0, |chance| {
            let bound = chance.pick(&[1, 1, 1, 10, 400]);
            chance.below(bound) as u64
        });
        let slow = if sky == Sky::Slow { 500 } else { 0 };
        Duration::from_millis(slow + skew)
    }
}

#[async_trait]
impl Watch for Sight {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            let (sky, swaps, compactions) = {
                let outlook = self.outlook.borrow_and_update();
                (outlook.sky, outlook.swaps, outlook.compactions)
            };
            if sky == Sky::Away || swaps != self.swaps {
                return Err(StoreError::Unavailable("the watch broke".to_owned()));
            }
            if compactions != self.compactions {
                return Err(StoreError::Compacted(0));
            }
            let passable = sky != Sky::Silent;
            let now = Instant::now();
            if passable && let Some(batch) = self.streams.iter_mut().find_map(|it| it.arrived(now))
            {
                return Ok(batch);
            }
            let due = self
                .streams
                .iter()
                .filter_map(|it| Some(it.late.as_ref()?.0));
            let due = due.min();
            let idle = self.streams.iter_mut().enumerate();
            let idle = idle.filter(|(_, stream)| stream.late.is_none());
            let next: Vec<_> = idle
                .map(|(at, stream)| Box::pin(async move { (at, stream.watch.next().await) }))
                .collect();
            let awaits = passable && !next.is_empty();
            let next = async {
                match awaits {
                    true => select_all(next).await.0,
                    false => std::future::pending().await,
                }
            };
            let (at, batch) = tokio::select! {
                biased;
                _ = self.outlook.changed() => continue,
                () = sleep_until(due.unwrap_or(now)), if passable && due.is_some() => continue,
                next = next => next,
            };
            let due = Instant::now() + self.delay(sky);
            self.streams[at].late = Some((due, batch?));
        }
    }
}
