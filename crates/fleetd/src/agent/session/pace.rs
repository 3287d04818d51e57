//! How often a machine reports: quickly at first, seldom while everything changes.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two reports of one machine. A listing that is this old is as good as now
/// to a person, and starting fifty units costs a few writes instead of fifty.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The least time between two reports in the long run, of a machine with a unit that crashes in a
/// loop, say.
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(1);

/// How many reports may come quickly before that counts: an update of a few units is followed
/// closely.
const QUICK: u32 = 20;

/// How soon the next report may follow.
pub(super) struct Pace {
    /// When all reports so far would have been written at the long pause.
    paid: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            paid: Instant::now(),
        }
    }

    /// One was written now. Answers when the next may be.
    pub(super) fn after_report(&mut self) -> Instant {
        let now = Instant::now();
        self.paid = self.paid.max(now) + LONG_PAUSE;
        let owed = (self.paid - now).saturating_sub(LONG_PAUSE * QUICK);
        now + owed.max(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep_until;

    #[tokio::test(start_paused = true)]
    async fn many_quick_reports_slow_down_until_quiet() {
        let mut pace = Pace::new();
        let mut pauses = async |count: u32| {
            let mut pauses = Vec::new();
            for _ in 0..count {
                let next = pace.after_report();
                pauses.push(next - Instant::now());
                sleep_until(next).await;
            }
            pauses
        };
        let first = pauses(100).await;
        assert!(
            first[..usize::try_from(QUICK).expect("small")]
                .iter()
                .all(|pause| *pause == PAUSE)
        );
        assert_eq!(first[99], LONG_PAUSE);
        tokio::time::sleep(LONG_PAUSE * 5).await;
        assert_eq!(pauses(4).await, [PAUSE; 4]);
    }
}
