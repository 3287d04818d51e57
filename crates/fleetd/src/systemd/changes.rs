//! Which units somebody should look at again: filled by signals, emptied by [`Changes::next`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::unit::UnitName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Dirty;

/// The least time between two answers, in the long run. One start makes about eight signals:
/// without a pause a burst of starts would be read unit by unit, with it 1,000 starts took 32
/// reads.
const PAUSE: Duration = Duration::from_millis(50);

/// The least time between the first two answers after it was quiet. It doubles from there, so that
/// an ordinary start, of ten milliseconds, is not noticed fifty later, and a long burst costs four
/// more reads.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The units that changed since they were last looked at, for one reader.
pub(super) struct Changes {
    seen: Mutex<Seen>,
    wake: Notify,
}

struct Seen {
    /// Signals come for every unit of the host; only these, fleet's own, are worth waking for.
    followed: BTreeMap<String, UnitName>,
    dirty: BTreeSet<UnitName>,
    reloaded: bool,
    all: bool,
    answered: Option<Instant>,
    /// How long to gather from then on.
    pause: Duration,
}

impl Changes {
    /// Starts with everything to look at.
    pub(super) fn new() -> Self {
        Self {
            seen: Mutex::new(Seen {
                followed: BTreeMap::new(),
                dirty: BTreeSet::new(),
                reloaded: false,
                all: true,
                answered: None,
                pause: FIRST_PAUSE,
            }),
            wake: Notify::new(),
        }
    }

    /// From now on changes of this unit count.
    pub(super) fn follow(&self, name: &UnitName) {
        let mut seen = self.seen();
        if !seen.followed.contains_key(name.as_str()) {
            seen.followed.insert(name.as_str().to_owned(), name.clone());
        }
    }

    /// These units are about to be looked at: what changed before is seen then. Answers those that
    /// did.
    pub(super) fn looking(&self, names: &BTreeSet<UnitName>) -> BTreeSet<UnitName> {
        let dirty = &mut self.seen().dirty;
        let changed = names.iter().filter_map(|name| dirty.take(name));
        changed.collect()
    }

    /// From now on changes of this unit count no more, which keeps the set as small as fleet's own
    /// units.
    pub(super) fn forget(&self, name: &UnitName) {
        self.seen().followed.remove(name.as_str());
    }

    /// This unit changed, if anybody cares.
    pub(super) fn mark(&self, name: &str) {
        let mut seen = self.seen();
        if let Some(name) = seen.followed.get(name).cloned()
            && seen.dirty.insert(name)
        {
            self.wake.notify_one();
        }
    }

    /// systemd read its configuration anew.
    pub(super) fn mark_reloaded(&self) {
        self.seen().reloaded = true;
        self.wake.notify_one();
    }

    /// Anything may have changed.
    pub(super) fn mark_all(&self) {
        self.seen().all = true;
        self.wake.notify_one();
    }

    /// Waits for a change: the first is answered at once, those that follow gather, up to
    /// [`PAUSE`]. Safe to cancel: what it answers is taken in the step that returns.
    pub(super) async fn next(&self) -> Dirty {
        loop {
            let pause = {
                let mut seen = self.seen();
                let now = Instant::now();
                let ends = seen.answered.map(|at| at + seen.pause);
                let pause = ends.filter(|end| *end > now);
                if !seen.all && !seen.reloaded && seen.dirty.is_empty() {
                    None
                } else if pause.is_none() {
                    // For a while after it could have been answered.
                    let was_quiet = ends.is_none_or(|end| end + PAUSE <= now);
                    seen.pause = match was_quiet {
                        true => FIRST_PAUSE,
                        false => (seen.pause * 2).min(PAUSE),
                    };
                    seen.answered = Some(now);
                    let units = std::mem::take(&mut seen.dirty);
                    let reloaded = std::mem::take(&mut seen.reloaded);
                    return match std::mem::take(&mut seen.all) {
                        true => Dirty::All,
                        false if reloaded => Dirty::Reloaded(units),
                        false => Dirty::Units(units),
                    };
                } else {
                    pause
                }
            };
            match pause {
                Some(end) => sleep_until(end).await,
                None => self.wake.notified().await,
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).expect("valid")
    }

    fn units(names: &[&str]) -> Dirty {
        Dirty::Units(names.iter().map(|name| unit(name)).collect())
    }

    /// Changes of which `a.service` and `b.service` are followed, the first answer taken.
    async fn followed() -> Changes {
        let changes = Changes::new();
        changes.follow(&unit("a.service"));
        changes.follow(&unit("b.service"));
        assert_eq!(changes.next().await, Dirty::All);
        tokio::time::sleep(PAUSE * 2).await;
        changes
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_told_at_once_and_the_next_ones_together() {
        let changes = followed().await;
        let start = Instant::now();
        changes.mark("a.service");
        assert_eq!(changes.next().await, units(&["a.service"]));
        assert_eq!(start.elapsed(), Duration::ZERO);
        changes.mark("b.service");
        changes.mark("a.service");
        assert_eq!(changes.next().await, units(&["a.service", "b.service"]));
        assert_eq!(start.elapsed(), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longer_a_burst_lasts_the_more_is_told_together() {
        let changes = followed().await;
        let pauses = async |count: usize| {
            let mut pauses = Vec::new();
            for _ in 0..count {
                changes.mark("a.service");
                let start = Instant::now();
                changes.next().await;
                pauses.push(start.elapsed().as_millis());
            }
            pauses
        };
        assert_eq!(pauses(8).await, [0, 5, 10, 20, 40, 50, 50, 50]);
        tokio::time::sleep(PAUSE * 2).await;
        assert_eq!(pauses(2).await, [0, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_is_told_with_what_changed_besides() {
        let changes = followed().await;
        changes.mark("a.service");
        changes.mark_reloaded();
        let changed = BTreeSet::from([unit("a.service")]);
        assert_eq!(changes.next().await, Dirty::Reloaded(changed));
        changes.mark_reloaded();
        changes.mark_all();
        assert_eq!(changes.next().await, Dirty::All);
        changes.mark("b.service");
        assert_eq!(changes.next().await, units(&["b.service"]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_before_a_look_is_not_told() {
        let changes = followed().await;
        changes.mark("a.service");
        changes.mark("b.service");
        let names = BTreeSet::from([unit("a.service")]);
        assert_eq!(changes.looking(&names), names);
        assert_eq!(changes.looking(&names), BTreeSet::new());
        assert_eq!(changes.next().await, units(&["b.service"]));
        changes.mark("a.service");
        assert_eq!(changes.next().await, units(&["a.service"]));
    }

    #[tokio::test(start_paused = true)]
    async fn units_that_nobody_follows_wake_nobody() {
        let changes = followed().await;
        changes.forget(&unit("b.service"));
        changes.mark("b.service");
        changes.mark("cron.service");
        let quiet = timeout(Duration::from_secs(3600), changes.next()).await;
        assert!(quiet.is_err(), "told {quiet:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_loses_nothing() {
        let changes = followed().await;
        changes.mark("a.service");
        changes.next().await;
        changes.mark("b.service");
        assert!(timeout(FIRST_PAUSE / 2, changes.next()).await.is_err());
        assert_eq!(changes.next().await, units(&["b.service"]));
    }
}
