//! A store seen through bad weather: away, silent, or swapped for another one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleetd::store::{
    Batch, Embedded, Guard, LeaseId, Result, Snapshot, Store, StoreError, Watch, Write,
};
use futures_util::future::select_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use lab::Chance;

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

/// What one commit came to: the number of the store that made it, its revision there, and what it
/// wrote.
pub(crate) type Landed<'a> = (usize, u64, &'a [Write]);

type Witness = Arc<dyn Fn(Landed<'_>) + Send + Sync>;

#[derive(Clone)]
struct Outlook {
    sky: Sky,
    store: Embedded,
    /// Which store that is, for whoever is told of commits.
    number: usize,
    witness: Option<Witness>,
    /// The key that no role allows to write.
    denied: Option<String>,
    /// Counts swaps: a watch of the store before is lost, and so is one after a list of it.
    swaps: u32,
    listed: u32,
    /// Counts what watches lost by it.
    compactions: u32,
    /// Each prefix is watched by itself, as etcd does it, and what it shows is late by chance.
    skew: Option<u64>,
}

impl Outlook {
    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        if writes
            .iter()
            .any(|write| Some(written_key(write)) == self.denied.as_deref())
        {
            return Err(StoreError::Denied("no role allows it".to_owned()));
        }
        let written = self.witness.as_ref().map(|_| writes.clone());
        let revision = self.store.commit(guards, writes).await?;
        if let Some((witness, writes)) = self.witness.as_ref().zip(written) {
            witness((self.number, revision, &writes));
        }
        Ok(revision)
    }
}

fn written_key(write: &Write) -> &str {
    match write {
        Write::Put { key, .. } | Write::Delete(key) | Write::DeletePrefix(key) => key,
    }
}

/// One machine's way to the registry. Clones are the same way.
#[derive(Clone)]
pub(crate) struct Weather(Arc<Place>);

/// Waiting tasks are woken in the order in which they came, so that histories
/// replay: `watch` draws lots.
struct Place {
    outlook: Mutex<Outlook>,
    changed: Notify,
}

impl Place {
    fn outlook(&self) -> MutexGuard<'_, Outlook> {
        self.outlook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_modify(&self, change: impl FnOnce(&mut Outlook)) {
        change(&mut self.outlook());
        self.changed.notify_waiters();
    }
}

impl Weather {
    pub(crate) fn over(store: Embedded) -> Self {
        let outlook = Outlook {
            sky: Sky::Clear,
            store,
            number: 0,
            witness: None,
            denied: None,
            swaps: 0,
            listed: 0,
            compactions: 0,
            skew: None,
        };
        Self(Arc::new(Place {
            outlook: Mutex::new(outlook),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn turn(&self, sky: Sky) {
        self.0.send_modify(|outlook| outlook.sky = sky);
    }

    /// From now on another store answers.
    pub(crate) fn swap(&self, store: &Embedded) {
        self.show(store, 0);
    }

    /// The same, and that is its number.
    pub(crate) fn show(&self, store: &Embedded, number: usize) {
        self.0.send_modify(|outlook| {
            outlook.store = store.clone();
            outlook.number = number;
            outlook.swaps += 1;
        });
    }

    /// From now on watches tell of each prefix by itself, some of it late.
    pub(crate) fn skew(&self, seed: u64) {
        self.0.send_modify(|outlook| outlook.skew = Some(seed));
    }

    /// The number of the store that answers.
    pub(crate) fn shows(&self) -> usize {
        self.0.outlook().number
    }

    pub(crate) fn sky(&self) -> Sky {
        self.0.outlook().sky
    }

    /// From now on the witness is told of every commit that landed, in its moment.
    pub(crate) fn tell(&self, witness: impl Fn(Landed<'_>) + Send + Sync + 'static) {
        let witness: Witness = Arc::new(witness);
        self.0
            .send_modify(|outlook| outlook.witness = Some(witness));
    }

    /// From now on no role allows to write that key.
    pub(crate) fn deny(&self, key: String) {
        self.0.send_modify(|outlook| outlook.denied = Some(key));
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
        let patience = Instant::now() + CALL;
        let outlook = loop {
            let changed = self.0.changed.notified();
            let outlook = self.0.outlook().clone();
            if outlook.sky != Sky::Silent {
                break outlook;
            }
            if timeout_at(patience, changed).await.is_err() {
                return Err(away());
            }
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
        self.0.outlook().listed = seen.swaps;
        seen.store.list(prefixes).await
    }

    async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64> {
        let outlook = self.look().await?;
        let lost = || StoreError::Unavailable("the answer was lost".to_owned());
        match outlook.sky {
            Sky::Unanswered => {
                let _ = outlook.commit(guards, writes).await;
                Err(lost())
            }
            Sky::Late => {
                tokio::spawn(async move {
                    sleep(LATE).await;
                    let _ = outlook.commit(guards, writes).await;
                });
                sleep(CALL).await;
                Err(lost())
            }
            _ => outlook.commit(guards, writes).await,
        }
    }

    async fn watch(&self, prefixes: &[&str], after: u64) -> Result<Box<dyn Watch>> {
        let (swaps, compactions, skew) = {
            let outlook = self.0.outlook();
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
            let late = VecDeque::new();
            streams.push(Stream { watch, late });
        }
        Ok(Box::new(Sight {
            streams,
            place: self.0.clone(),
            swaps,
            compactions,
            chance: skew.map(|seed| Chance::of(seed ^ after)),
        }))
    }

    async fn create_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.pass().await?.create_lease(ttl).await
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
    place: Arc<Place>,
    swaps: u32,
    compactions: u32,
    chance: Option<Chance>,
}

struct Stream {
    watch: Box<dyn Watch>,
    /// Batches on their way, and when they are here: each as late as the one before it at least.
    /// However many there are, none waits for the others' delays: a way that is long is not narrow.
    late: VecDeque<(Instant, Batch)>,
}

impl Stream {
    fn arrived(&mut self, now: Instant) -> Option<Batch> {
        self.due().filter(|at| *at <= now)?;
        self.late.pop_front().map(|(_, batch)| batch)
    }

    /// When the next one is here.
    fn due(&self) -> Option<Instant> {
        self.late.front().map(|(at, _)| *at)
    }

    fn send(&mut self, batch: Batch, due: Instant) {
        let before = self.late.back().map(|(at, _)| *at);
        self.late
            .push_back((before.map_or(due, |at| at.max(due)), batch));
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
        let place = self.place.clone();
        loop {
            let changed = place.changed.notified();
            let (sky, swaps, compactions) = {
                let outlook = place.outlook();
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
            let due = self.streams.iter().filter_map(Stream::due).min();
            let streams = self.streams.iter_mut().enumerate();
            let next: Vec<_> = streams
                .map(|(at, stream)| Box::pin(async move { (at, stream.watch.next().await) }))
                .collect();
            let next = async {
                match passable {
                    true => select_all(next).await.0,
                    false => std::future::pending().await,
                }
            };
            let (at, batch) = tokio::select! {
                biased;
                () = changed => continue,
                () = sleep_until(due.unwrap_or(now)), if passable && due.is_some() => continue,
                next = next => next,
            };
            let due = Instant::now() + self.delay(sky);
            self.streams[at].send(batch?, due);
        }
    }
}
