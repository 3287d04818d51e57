//! Follows a part of the registry: lists it, watches it, and starts over whenever the watch breaks.
//!
//! ```text
//!   Listing --snapshot--> Watching --batch--> Watching
//!      ^                     |
//!      +---- back-off <------+ (unavailable, compacted)
//! ```
//!
//! Because every start is a whole list, a lost or compacted watch costs latency, never correctness.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::store::{Batch, Change, Entry, Snapshot, Store, StoreError, Watch};

/// What a follower is told.
#[derive(Debug)]
pub enum Update {
    /// All there is, in place of whatever was known.
    Reset(Snapshot),
    /// One commit's changes.
    Changed(Batch),
    /// The registry is away; what is known stays. Said once, until the next [`Update::Reset`].
    Away(StoreError),
}

/// How many events may wait for a slow follower before the watch itself waits. A follower takes all that wait as one: an agent
/// whose systemd takes a second to read a thousand files again must not do so for every few of them.
const QUEUE: usize = 8192;

/// How much may wait there. A follower whose systemd takes minutes must not collect all that the fleet says meanwhile.
const QUEUE_KIB: u32 = 32 << 10;

/// A watch that held for so long was a good one.
const LASTING: Duration = Duration::from_secs(10);

/// Says of a batch which key it means nothing without; see [`Mirror::beside`].
pub type Beside = fn(&Batch) -> Option<&'static str>;

/// How a part of the registry is followed.
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
    /// Of these prefixes of the store.
    pub fn new(store: Arc<dyn Store>, prefixes: Vec<String>, backoff: Backoff) -> Self {
        Self {
            store,
            prefixes,
            backoff,
            beside: |_| None,
            before_list: Box::new(|| {}),
        }
    }

    /// Some batches come with what a key holds after them, read for that: each prefix has a watch of its own, so that the
    /// news of another key may be late.
    pub fn beside(self, beside: Beside) -> Self {
        Self { beside, ..self }
    }

    /// Calls this right before each list: what is known then, the list knows too.
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

/// What a follower is told, in order.
pub struct Updates {
    waiting: mpsc::Receiver<(Update, OwnedSemaphorePermit)>,
}

impl Updates {
    /// Waits for the next; none if there will be no more. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Update> {
        Some(self.waiting.recv().await?.0)
    }

    /// The next, if there is one.
    pub fn try_recv(&mut self) -> Option<Update> {
        Some(self.waiting.try_recv().ok()?.0)
    }
}

/// What waits for a slow follower.
struct Line {
    events: mpsc::Sender<(Update, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// The follower is gone.
struct Gone;

impl Line {
    async fn send(&self, update: Update) -> Result<(), Gone> {
        let size = u32::try_from(size(&update) >> 10).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(size.min(QUEUE_KIB));
        let room = room.await.map_err(|_| Gone)?;
        self.events.send((update, room)).await.map_err(|_| Gone)
    }
}

/// What it takes in memory, about.
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

/// Ends only when the receiver is gone.
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
                            // A watch that breaks at once every time is not made anew at once every time.
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
        // A compacted watch is normal; a list at once puts it right.
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
