//! When a rollout last made progress, and when its deadline is.

use std::time::Duration;

use super::Towards;
use crate::record::Progress;

/// Progress is written down at most that often in the time of its deadline: it is only for the
/// deadline.
const PROGRESS_WRITES: u32 = 20;

/// When a rollout last made progress.
pub(super) struct Clock {
    up_at: u64,
    pub(super) write: Option<Progress>,
    pub(super) wake_at: Option<u64>,
}

impl Clock {
    pub(super) fn of(towards: &Towards<'_>, done: usize) -> Self {
        let (situation, now) = (towards.situation, towards.situation.now);
        let deadline = situation.policy.progress_deadline;
        let fresh = Progress {
            unit: situation.created,
            revision: towards.revision,
            done,
            at: now,
        };
        let known = situation
            .progress
            .filter(|it| (it.unit, it.revision) == (fresh.unit, fresh.revision));
        let Some(known) = known else {
            return Self {
                up_at: now.saturating_add(millis(deadline)),
                wake_at: Some(now.saturating_add(millis(deadline))),
                write: Some(fresh),
            };
        };
        let more = done > known.done;
        let last = situation.counted(known.at);
        let write_at = last.saturating_add(millis(deadline / PROGRESS_WRITES));
        let up_at = if more { now } else { last }.saturating_add(millis(deadline));
        let write = (more && now >= write_at).then_some(fresh);
        Self {
            up_at,
            wake_at: Some(if more && write.is_none() {
                write_at
            } else {
                up_at
            }),
            write,
        }
    }

    pub(super) fn is_up(&self, now: u64) -> bool {
        now >= self.up_at
    }
}

/// A time in milliseconds, as far as it fits.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
