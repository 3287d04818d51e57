//! The waits between attempts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The first wait: long enough not to spin, short enough not to be noticed.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait. It bounds how long a registry that is back stays unnoticed.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double. Each is shortened by up to half, so that a thousand machines do not return at
/// once.
///
/// The shortening is derived from a seed (the machine id), not drawn, so that the same history
/// replays the same way.
#[derive(Clone, Debug)]
pub struct Backoff {
    seed: String,
    attempt: u32,
    longest: Duration,
}

impl Backoff {
    /// Returns a back-off that has not waited yet.
    pub fn new(seed: &str) -> Self {
        Self {
            seed: seed.to_owned(),
            attempt: 0,
            longest: LONGEST,
        }
    }

    /// Sets another bound for the same waits.
    pub fn up_to(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Returns the next wait.
    pub fn wait(&mut self) -> Duration {
        let full = FIRST
            .saturating_mul(1 << self.attempt.min(10))
            .min(self.longest);
        let mut hasher = DefaultHasher::new();
        (&self.seed, self.attempt).hash(&mut hasher);
        self.attempt = self.attempt.saturating_add(1);
        let millis = u64::try_from(full.as_millis()).unwrap_or(u64::MAX);
        full - Duration::from_millis(hasher.finish() % (millis / 2 + 1))
    }

    /// Starts over with the first wait after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ_between_machines() {
        let waits = |seed: &str| {
            let mut backoff = Backoff::new(seed);
            (0..20).map(|_| backoff.wait()).collect::<Vec<_>>()
        };
        let (a, b) = (waits("a"), waits("b"));
        assert_ne!(a, b);
        assert_eq!(a, waits("a"));
        assert!(a[0] <= FIRST && a[0] >= FIRST / 2);
        assert!(
            a[10..]
                .iter()
                .all(|wait| *wait <= LONGEST && *wait >= LONGEST / 2)
        );
    }
}
