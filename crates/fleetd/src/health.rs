//! Whether the daemon's loops still turn: what the watchdog asks before it tells systemd that all is well.

use std::sync::{Arc, Mutex};

use tokio::time::{Duration, Instant};

/// A loop that takes longer than this for one step is stuck: every call it makes is bounded by less.
const STUCK: Duration = Duration::from_secs(120);

/// The heart of one loop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Heart(Arc<Mutex<Option<Instant>>>);

/// Held while a loop works.
#[derive(Debug)]
pub struct Busy(Heart);

impl Heart {
    /// The loop begins to work on something, and is idle again when the answer is dropped.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.set(Some(Instant::now()));
        Busy(self.clone())
    }

    /// The loop has come a step further.
    pub fn still_busy(&self) {
        self.set(Some(Instant::now()));
    }

    /// Whether the loop is idle, or has not worked on one thing for too long.
    pub fn beats(&self) -> bool {
        let since = self.0.lock().map(|since| *since);
        since.is_ok_and(|since| since.is_none_or(|since| since.elapsed() < STUCK))
    }

    fn set(&self, since: Option<Instant>) {
        if let Ok(mut guard) = self.0.lock() {
            *guard = since;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_works_for_too_long_does_not_beat() {
        let heart = Heart::default();
        assert!(heart.beats());
        let busy = heart.busy();
        tokio::time::advance(STUCK - Duration::from_secs(1)).await;
        assert!(heart.beats());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!heart.beats());
        drop(busy);
        assert!(heart.beats());
    }
}
