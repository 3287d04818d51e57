//! Follows a part of the registry: lists it, watches it, and starts over whenever the watch breaks.
//!
//! ```text
//!   Listing --snapshot--> Watching --batch--> Watching
//!      ^                     |
//!      +---- back-off <------+ (unavailable, compacted)
//! ```
//!
//! Every start is a full list, so a lost or compacted watch costs latency, never correctness.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::store::{Batch, Change, Entry, Snapshot, Store, StoreError, Watch};

/// An update for a follower.
#[derive(Debug)]
pub enum Update {
    /// The whole content, which replaces everything known before.
    Reset(Snapshot),
    /// One commit's changes.
    Changed(Batch),
    /// The registry is unavailable, and what is known stays. Sent once until the next
    /// [`Update::Reset`].
    Away(StoreError),
}

/// The number of events that may wait for a slow follower before the watch itself waits. A follower
/// takes all waiting events at once. systemd may take a second to read a thousand files again,
/// which an agent must not cause for every few events.
const QUEUE: usize = 8192;

/// The size limit of the waiting events. If systemd takes minutes, its follower must not collect
/// everything that the fleet reports meanwhile.
const QUEUE_KIB: u32 = 32 << 10;

/// A watch that lasted this long resets the back-off.
const LASTING: Duration = Duration::from_secs(10);

/// Returns the key without which a batch means nothing, if there is one; see [`Mirror::beside`].
pub type Beside = fn(&Batch) -> Option<&'static str>;

/// How to follow a part of the registry.
pub struct Mirror {
    store: Arc<dyn Store>,
    prefixes: Vec<String>,
    backoff: Backoff,
    beside: Beside,
    before_list: Box<dyn FnMut() + Send>,
}

/// Follows the prefixes until the receiver is dropped.
pub fn follow(store: Arc<dyn Store>, prefixes: Vec<String>, backoff: Backoff) -> Updates {
    Mirror::new(store, prefixes, backoff).follow()
}

impl Mirror {
    /// Returns a mirror of these prefixes of the store.
    pub fn new(store: Arc<dyn Store>, prefixes: Vec<String>, backoff: Backoff) -> Self {
        Self {
            store,
            prefixes,
            backoff,
            beside: |_| None,
            before_list: Box::new(|| {}),
        }
    }

    /// Adds the present value of a key to some batches. Each prefix has a watch of its own, so news
    /// of that key might otherwise arrive later.
    pub fn beside(self, beside: Beside) -> Self {
        Self { beside, ..self }
    }

    /// Calls this right before each list. The list then covers everything known at that moment.
    pub fn before_list(self, call: impl FnMut() + Send + 'static) -> Self {
        let before_list = Box::new(call);
        Self {
            before_list,
            ..self
        }
    }

    /// Follows until the receiver is dropped.
    pub fn follow(self) -> Updates {
        let (events, waiting) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        let line = Line { events, room };
        tokio::spawn(async move {
            let closed = line.events.clone();
            tokio::select! {
                biased;
                () = closed.closed() => {}
                _ = run(self, line) => {}
            }
        });
        Updates { waiting }
    }
}

/// The updates for a follower, in order.
pub struct Updates {
    waiting: mpsc::Receiver<(Update, OwnedSemaphorePermit)>,
}

impl Updates {
    /// Waits for the next update. `None` if there will be no more. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Update> {
        Some(self.waiting.recv().await?.0)
    }

    /// Returns the next update, if there is one.
    pub fn try_recv(&mut self) -> Option<Update> {
        Some(self.waiting.try_recv().ok()?.0)
    }
}

/// The updates that wait for a slow follower.
struct Line {
    events: mpsc::Sender<(Update, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// The follower was dropped.
struct Gone;

impl Line {
    async fn send(&self, update: Update) -> Result<(), Gone> {
        let size = u32::try_from(size(&update) >> 10).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(size.min(QUEUE_KIB));
        let room = room.await.map_err(|_| Gone)?;
        self.events.send((update, room)).await.map_err(|_| Gone)
    }
}

/// Returns its approximate size in memory.
fn size(update: &Update) -> usize {
    let entry = |key: &String, entry: &Entry| key.len() + entry.value.len() + 100;
    match update {
        Update::Reset(snapshot) => {
            let entries = snapshot.entries.iter();
            entries.map(|(key, value)| entry(key, value)).sum()
        }
        Update::Changed(batch) => {
            let change = |change: &Change| match change {
                Change::Put(key, value) => entry(key, value),
                Change::Delete(key) => key.len(),
            };
            batch.changes.iter().map(change).sum()
        }
        Update::Away(_) => 0,
    }
}

/// Runs until the receiver is dropped.
async fn run(mirror: Mirror, events: Line) -> Result<(), Gone> {
    let Mirror {
        store,
        prefixes,
        mut backoff,
        beside,
        mut before_list,
    } = mirror;
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let mut away = false;
    loop {
        before_list();
        let error = match start(&*store, &prefixes).await {
            Ok((snapshot, mut watch)) => {
                let began = Instant::now();
                away = false;
                events.send(Update::Reset(snapshot)).await?;
                loop {
                    match next(&*store, &mut *watch, beside).await {
                        Ok(batch) => events.send(Update::Changed(batch)).await?,
                        Err(error) => {
                            // A watch that breaks at once each time is opened again only after a
                            // pause.
                            if began.elapsed() > LASTING {
                                backoff.reset();
                            }
                            break error;
                        }
                    }
                }
            }
            Err(error) => error,
        };
        // A compacted watch is normal, and an immediate list repairs it.
        if !matches!(error, StoreError::Compacted(_)) && !away {
            away = true;
            events.send(Update::Away(error)).await?;
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

async fn next(
    store: &dyn Store,
    watch: &mut dyn Watch,
    beside: Beside,
) -> Result<Batch, StoreError> {
    let mut batch = watch.next().await?;
    if let Some(key) = beside(&batch) {
        let entry = store.list(&[key]).await?.entries.remove(key);
        let key = key.to_owned();
        batch.changes.push(match entry {
            Some(entry) => Change::Put(key, entry),
            None => Change::Delete(key),
        });
    }
    Ok(batch)
}

async fn start(
    store: &dyn Store,
    prefixes: &[&str],
) -> Result<(Snapshot, Box<dyn Watch>), StoreError> {
    let snapshot = store.list(prefixes).await?;
    let watch = store.watch(prefixes, snapshot.revision).await?;
    Ok((snapshot, watch))
}
