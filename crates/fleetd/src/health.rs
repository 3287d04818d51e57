//! The progress of the daemon's loops. The watchdog checks it before it reports to systemd that
//! fleetd is well.

use std::sync::{Arc, Mutex};

use tokio::time::{Duration, Instant};

/// The longest time for one step of a loop. Every call in a loop has a shorter limit.
const STUCK: Duration = Duration::from_secs(120);

/// The heart of one loop. All clones share it.
#[derive(Clone, Debug, Default)]
pub struct Heart(Arc<Mutex<Option<Instant>>>);

/// A sign that a loop is working. Dropping it makes the loop idle.
#[derive(Debug)]
pub struct Busy(Heart);

impl Heart {
    /// Marks the loop as working. It is idle again when the result is dropped.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.set(Some(Instant::now()));
        Busy(self.clone())
    }

    /// Marks that the loop has finished another step.
    pub fn still_busy(&self) {
        self.set(Some(Instant::now()));
    }

    /// Returns whether the loop is idle, or has made progress within the limit.
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
