//! Holds live entries for a moment, so that a delayed entry still comes before a later one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Entry;

/// The time to hold entries. It is longer than usual network differences, and too short to be
/// noticed.
const HELD: Duration = Duration::from_millis(300);

/// Live entries, ordered by time.
#[derive(Default)]
pub(crate) struct HoldBack {
    /// The entries by time, then in the order of arrival. Each has the moment when it was held long
    /// enough.
    held: BTreeMap<(u64, u64), (Instant, usize, Entry)>,
    arrived: u64,
}

impl HoldBack {
    /// Adds an entry of a machine that arrives now.
    pub(crate) fn push(&mut self, machine: usize, entry: Entry, now: Instant) {
        self.arrived += 1;
        let place = (entry.time, self.arrived);
        self.held.insert(place, (now + HELD, machine, entry));
    }

    /// Returns when [`Self::due`] will return something. `None` while nothing is held.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.held.values().map(|(due, _, _)| *due).min()
    }

    /// Removes and returns all held entries, in order.
    pub(crate) fn all(&mut self) -> Vec<(usize, Entry)> {
        let held = std::mem::take(&mut self.held).into_values();
        held.map(|(_, machine, entry)| (machine, entry)).collect()
    }

    /// Removes and returns the entries to show now, in order. These are the entries held long
    /// enough, and all with an earlier time.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(usize, Entry)> {
        let last = self.held.iter().rfind(|(_, (due, _, _))| *due <= now);
        let Some((&(time, arrival), _)) = last else {
            return Vec::new();
        };
        let later = self.held.split_off(&(time, arrival + 1));
        let shown = std::mem::replace(&mut self.held, later);
        let entries = shown.into_values();
        entries
            .map(|(_, machine, entry)| (machine, entry))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: u64) -> Entry {
        Entry {
            time,
            ..Entry::default()
        }
    }

    #[test]
    fn delayed_entry_comes_before_a_later_one() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let times = |due: Vec<(usize, Entry)>| -> Vec<u64> {
            due.into_iter().map(|(_, entry)| entry.time).collect()
        };
        let mut held = HoldBack::default();
        assert_eq!(held.next(), None);
        held.push(0, entry(7), at(0));
        held.push(1, entry(5), at(100));
        held.push(0, entry(9), at(200));
        assert_eq!(times(held.due(at(299))), [0; 0]);
        assert_eq!(held.next(), Some(at(300)));
        assert_eq!(times(held.due(at(300))), [5, 7]);
        assert_eq!(held.next(), Some(at(500)));
        assert_eq!(times(held.due(at(500))), [9]);
    }

    #[test]
    fn entries_of_one_moment_stay_in_the_order_of_arrival() {
        let start = Instant::now();
        let mut held = HoldBack::default();
        for machine in [2, 0, 1] {
            held.push(machine, entry(5), start);
        }
        let due = held.due(start + HELD);
        let machines: Vec<usize> = due.into_iter().map(|(machine, _)| machine).collect();
        assert_eq!(machines, [2, 0, 1]);
    }
}
