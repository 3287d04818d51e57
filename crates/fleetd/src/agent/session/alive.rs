//! Whether this machine's session still counts, and with it what was granted to it.

use fleet_core::machine::SessionId;
use tokio::time::Instant;

use crate::agent::clocks::Clocks;

/// A presence that the registry vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Alive {
    pub(in crate::agent) session: SessionId,
    /// The end of its lease, if no renewal is answered any more: counted from when the last one was
    /// asked for.
    pub(in crate::agent) until: Instant,
    /// What the other clocks said when that renewal was asked for.
    pub(in crate::agent) clocks: Clocks,
}

impl Alive {
    /// The session, unless its lease may have ended by now.
    pub(in crate::agent) fn session(&self) -> Option<SessionId> {
        self.session_by(Clocks::now())
    }

    /// A machine that was suspended, or a guest that was stopped, has not aged by the clock that
    /// leases are counted by. So a jump of another clock puts the session in doubt, until a renewal
    /// is answered.
    fn session_by(&self, clocks: Clocks) -> Option<SessionId> {
        let is_whole = Instant::now() < self.until && !clocks.jumped_since(&self.clocks);
        is_whole.then_some(self.session)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_is_in_doubt_after_a_suspend_until_it_is_renewed() {
        let clocks = Clocks::now();
        let alive = Alive {
            session: 7,
            until: Instant::now() + Duration::from_secs(30),
            clocks,
        };
        assert_eq!(alive.session_by(clocks), Some(7));
        let minute = Duration::from_secs(60);
        assert_eq!(alive.session_by(clocks.suspended_for(minute)), None);
        assert_eq!(alive.session_by(clocks.set_by(3_600_000)), None);
        assert_eq!(alive.session_by(clocks.set_by(-3_600_000)), None);
        assert_eq!(alive.session_by(clocks.set_by(20)), Some(7));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(alive.session_by(clocks), None);
    }
}
