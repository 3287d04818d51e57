//! How long to wait for a late answer.
//!
//! When thousands of machines join at once, each answer is late. If each of them repeated its
//! request after a fixed time, etcd would work only for machines that have stopped waiting. 5,000
//! machines that joined at once sent a small etcd 2,500 requests a second, and none succeeded. So a
//! user of the store that has time doubles its wait after each late answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest wait. It is less than a third of the shortest useful lease, so that a late renewal
/// leaves time for another one.
const LONGEST: Duration = Duration::from_secs(8);

/// The patience of one user of the store.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Whether the wait grows.
    grows: bool,
    /// The number of doublings from the beginning.
    least: u32,
    /// The number of further doublings for late answers.
    late: AtomicU32,
}

impl Patience {
    /// Returns a patience that doubles with each late answer, up to eight seconds, after `least`
    /// doublings from the beginning. Any other patience keeps its limit, because a person waits for
    /// the answer.
    pub(super) fn growing(least: u32) -> Self {
        Self {
            grows: true,
            least,
            ..Self::default()
        }
    }

    /// Returns the time limit of the next answer. `first` is the limit without doublings.
    pub(super) fn limit(&self, first: Duration) -> Duration {
        let doublings = (self.least + self.late.load(Ordering::Relaxed)).min(16);
        first.saturating_mul(1 << doublings).min(LONGEST.max(first))
    }

    /// Records that no answer came within that time.
    pub(super) fn was_late(&self, limit: Duration) {
        if self.grows && limit < LONGEST {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that an answer came after that time. A quick answer shows that the crowd is gone.
    pub(super) fn was_answered(&self, after: Duration, first: Duration) {
        if after < first / 2 {
            let less = |late: u32| late.checked_sub(1);
            // `None` means that no doubling is left.
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
    fn patience_grows_with_late_and_shrinks_with_quick_answers() {
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
    fn patience_keeps_its_limit_without_growth_and_never_lowers_it() {
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
