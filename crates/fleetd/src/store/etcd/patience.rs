//! How long to wait for an answer that is late.
//!
//! When thousands of machines come at once, each answer is late. Were each of them asked for again after the same time,
//! etcd would only ever work for those who have stopped to wait: 5,000 machines that joined in one moment asked a small etcd
//! 2,500 times a second, and none got through. So whoever has time waits twice as long after each answer that was late.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Below a third of the shortest lease that is of use, so that a renewal which is late leaves time for another.
const LONGEST: Duration = Duration::from_secs(8);

/// How long one user of the store waits.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Whether it grows.
    grows: bool,
    /// It is doubled so often from the beginning.
    least: u32,
    /// And so often for answers that were late.
    late: AtomicU32,
}

impl Patience {
    /// One that grows with each answer that is late, up to eight seconds, and is doubled that often from the beginning. Without,
    /// the limit stays: somebody sits there and waits.
    pub(super) fn growing(least: u32) -> Self {
        Self {
            grows: true,
            least,
            ..Self::default()
        }
    }

    /// How long the next answer may take. `first`: how long the first one might.
    pub(super) fn limit(&self, first: Duration) -> Duration {
        let doublings = (self.least + self.late.load(Ordering::Relaxed)).min(16);
        first.saturating_mul(1 << doublings).min(LONGEST.max(first))
    }

    /// No answer came within that time.
    pub(super) fn was_late(&self, limit: Duration) {
        if self.grows && limit < LONGEST {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One came after that time. One that was quick tells that the crowd is gone.
    pub(super) fn was_answered(&self, after: Duration, first: Duration) {
        if after < first / 2 {
            let less = |late: u32| late.checked_sub(1);
            // None: it waits as long as at first already.
            let _ = self
                .late
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);

    #[test]
    fn it_grows_with_what_is_late_and_shrinks_with_what_is_quick() {
        let patience = Patience::growing(0);
        let mut limits = Vec::new();
        for _ in 0..5 {
            let limit = patience.limit(FIRST);
            limits.push(limit.as_secs());
            patience.was_late(limit);
        }
        assert_eq!(limits, [1, 2, 4, 8, 8]);
        patience.was_answered(FIRST * 3, FIRST);
        assert_eq!(patience.limit(FIRST).as_secs(), 8);
        for seconds in [4, 2, 1, 1] {
            patience.was_answered(FIRST / 10, FIRST);
            assert_eq!(patience.limit(FIRST).as_secs(), seconds);
        }
    }

    #[test]
    fn who_is_in_a_hurry_never_waits_longer_and_nobody_less_than_was_set() {
        let hasty = Patience::default();
        hasty.was_late(FIRST);
        assert_eq!(hasty.limit(FIRST), FIRST);
        assert_eq!(Patience::growing(2).limit(FIRST), FIRST * 4);
        let patient = Patience::growing(2);
        let set = Duration::from_secs(20);
        patient.was_late(set);
        assert_eq!(patient.limit(set), set);
    }
}
