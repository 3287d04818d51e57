//! What the clocks say that go on while the one stands still by which leases are counted.
//!
//! Leases and pauses are counted by CLOCK_MONOTONIC. It stands still while the machine is
//! suspended, and it may do so while a guest is stopped. CLOCK_BOOTTIME counts a suspend, and the
//! wall clock is set after both.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// By how many milliseconds a clock may come away from the other: they are read one after the
/// other, and time servers slew the wall clock.
const JUMP: i64 = 1_000;

/// How far the other clocks are from CLOCK_MONOTONIC, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clocks {
    boot: i64,
    wall: i64,
}

impl Clocks {
    pub(super) fn now() -> Self {
        let monotonic = millis(ClockId::Monotonic);
        Self {
            boot: millis(ClockId::Boottime) - monotonic,
            wall: millis(ClockId::Realtime) - monotonic,
        }
    }

    /// Whether one of them went on while the other stood still, or was set.
    pub(super) fn jumped_since(&self, before: &Self) -> bool {
        (self.boot - before.boot).abs() > JUMP || (self.wall - before.wall).abs() > JUMP
    }

    #[cfg(test)]
    pub(super) fn suspended_for(self, time: Duration) -> Self {
        let time = i64::try_from(time.as_millis()).expect("short");
        Self {
            boot: self.boot + time,
            ..self
        }
    }

    #[cfg(test)]
    pub(super) fn set_by(self, millis: i64) -> Self {
        Self {
            wall: self.wall + millis,
            ..self
        }
    }
}

fn millis(clock: ClockId) -> i64 {
    let time = Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
