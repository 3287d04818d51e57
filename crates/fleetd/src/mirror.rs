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

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::store::{Batch, Change, Snapshot, Store, StoreError, Watch};

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

/// A watch that held for so long was a good one.
const LASTING: Duration = Duration::from_secs(10);

/// Says of a batch which key it means nothing without; see [`follow_with`].
pub type Beside = fn(&Batch) -> Option<&'static str>;

/// Follows the prefixes until the receiver is dropped.
pub fn follow(
    store: Arc<dyn Store>,
    prefixes: Vec<String>,
    backoff: Backoff,
) -> mpsc::Receiver<Update> {
    follow_with(store, prefixes, backoff, |_| None)
}

/// The same, where some batches come with what a key holds after them, read for that: each prefix has a watch of its own,
/// so that the news of another key may be late.
pub fn follow_with(
    store: Arc<dyn Store>,
    prefixes: Vec<String>,
    backoff: Backoff,
    beside: Beside,
) -> mpsc::Receiver<Update> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = sender.closed() => {}
            _ = run(store, prefixes, backoff, beside, sender.clone()) => {}
        }
    });
    receiver
}

/// Ends only when the receiver is gone.
async fn run(
    store: Arc<dyn Store>,
    prefixes: Vec<String>,
    mut backoff: Backoff,
    beside: Beside,
    events: mpsc::Sender<Update>,
) -> Result<(), mpsc::error::SendError<Update>> {
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let mut away = false;
    loop {
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
