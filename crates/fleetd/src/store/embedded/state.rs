//! The state of the embedded store, and the effect of a commit on it: values, without a lock, a
//! clock or a disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Batch, Change, Entry, Guard, LeaseId, Result, Snapshot, StoreError, Write};

/// The number of commits that a watch may lag behind. A list costs little here, so this is
/// generous, not needed.
const HISTORY_COMMITS: usize = 4096;
/// The same limit in bytes of values, because a commit may be large.
const HISTORY_BYTES: usize = 16 << 20;
/// The first revision of etcd. 0 means "before everything".
const FIRST_REVISION: u64 = 1;

/// All keys and leases, and the latest commits.
#[derive(Clone)]
pub(super) struct State {
    pub(super) revision: u64,
    records: BTreeMap<String, Entry>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    /// The latest commits, complete, oldest first.
    history: VecDeque<Batch>,
    history_bytes: usize,
    /// The latest commit that is no longer in the history.
    forgotten: u64,
}

#[derive(Clone)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

/// The effect of a commit: the new content of each key, or `None` if it is removed.
pub(super) struct Plan {
    pub(super) revision: u64,
    records: BTreeMap<String, Option<Entry>>,
}

impl Plan {
    /// Returns whether the plan changes nothing, not even the revision.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl State {
    /// Returns the state after a restart. It has no key under a lease.
    pub(super) fn after_restart(snapshot: Option<Snapshot>) -> Self {
        // The restart removed the leased keys. That is a change like any other, so it has a
        // revision.
        let (revision, entries) = match snapshot {
            Some(snapshot) => (snapshot.revision + 1, snapshot.entries),
            None => (FIRST_REVISION, BTreeMap::new()),
        };
        Self {
            revision,
            records: entries,
            leases: BTreeMap::new(),
            last_lease: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: revision,
        }
    }

    /// Gives every lease its full time again, and returns the leases.
    pub(super) fn extend_leases(&mut self, now: Instant) -> Vec<LeaseId> {
        for lease in self.leases.values_mut() {
            lease.ends = now + lease.ttl;
        }
        self.leases.keys().copied().collect()
    }

    /// Names new leases differently from those in a copy of this state.
    pub(super) fn skip_leases(&mut self, from: i64) {
        self.last_lease = self.last_lease.max(from);
    }

    /// Returns the effect of the writes, if the guards hold.
    pub(super) fn plan(&self, guards: &[Guard], writes: Vec<Write>, now: Instant) -> Result<Plan> {
        if !guards.iter().all(|guard| self.holds(guard)) {
            return Err(StoreError::Refused);
        }
        let mut plan = Plan {
            revision: self.revision + 1,
            records: BTreeMap::new(),
        };
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    if lease.is_some_and(|lease| !self.is_alive(lease, now)) {
                        return Err(StoreError::LeaseLost);
                    }
                    let before = self.records.get(&key);
                    let entry = Entry {
                        value: value.into(),
                        created: before.map_or(plan.revision, |record| record.created),
                        modified: plan.revision,
                        lease,
                    };
                    plan.records.insert(key, Some(entry));
                }
                Write::Delete(key) => {
                    if self.records.contains_key(&key) {
                        plan.records.insert(key, None);
                    }
                }
                Write::DeletePrefix(prefix) => {
                    let gone = self.below(&prefix).map(|(key, _)| (key.clone(), None));
                    plan.records.extend(gone);
                }
            }
        }
        Ok(plan)
    }

    /// Returns the plan that removes a lease's keys.
    pub(super) fn plan_end_of(&self, lease: LeaseId) -> Plan {
        let held = (self.records.iter()).filter(|(_, record)| record.lease == Some(lease));
        Plan {
            revision: self.revision + 1,
            records: held.map(|(key, _)| (key.clone(), None)).collect(),
        }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let entry = |key| self.records.get(key);
        match guard {
            Guard::Absent(key) => entry(key).is_none(),
            Guard::Unmodified(key, at) => entry(key).is_some_and(|entry| entry.modified == *at),
            Guard::CreatedAt(key, at) => entry(key).is_some_and(|entry| entry.created == *at),
            Guard::NoneSince(prefix, at) => {
                (self.below(prefix)).all(|(_, record)| record.modified <= *at)
            }
        }
    }

    /// Creates a lease without keys.
    pub(super) fn create_lease(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.last_lease += 1;
        let lease = LeaseId(self.last_lease);
        let ends = now + ttl;
        self.leases.insert(lease, Lease { ttl, ends });
        lease
    }

    /// Moves a lease's end, unless it has passed.
    pub(super) fn renew(&mut self, lease: LeaseId, now: Instant) -> Result<()> {
        match self.leases.get_mut(&lease) {
            Some(lease) if now < lease.ends => {
                lease.ends = now + lease.ttl;
                Ok(())
            }
            _ => Err(StoreError::LeaseLost),
        }
    }

    /// Forbids new keys under the lease. A plan removes its present keys.
    pub(super) fn close(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// Returns when the lease ends. `None` if it is gone.
    pub(super) fn end_of(&self, lease: LeaseId) -> Option<Instant> {
        self.leases.get(&lease).map(|lease| lease.ends)
    }

    fn is_alive(&self, lease: LeaseId, now: Instant) -> bool {
        self.leases
            .get(&lease)
            .is_some_and(|lease| now < lease.ends)
    }

    /// Returns all entries below these prefixes, none of which covers another.
    pub(super) fn list(&self, prefixes: &[&str]) -> Snapshot {
        let below = |prefix: &&str| self.below(prefix).collect::<Vec<_>>();
        Snapshot {
            revision: self.revision,
            entries: (prefixes.iter().flat_map(below))
                .map(|(key, record)| (key.clone(), record.clone()))
                .collect(),
        }
    }

    fn below(&self, prefix: &str) -> impl Iterator<Item = (&String, &Entry)> {
        (self.records.range(prefix.to_owned()..))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Returns the state that would outlive a restart after the plan.
    pub(super) fn lasting_after(&self, plan: &Plan) -> Snapshot {
        let unchanged = (self.records.iter()).filter(|(key, _)| !plan.records.contains_key(*key));
        let changed =
            (plan.records.iter()).filter_map(|(key, record)| Some((key, record.as_ref()?)));
        Snapshot {
            revision: plan.revision,
            entries: (unchanged.chain(changed))
                .filter(|(_, record)| record.lease.is_none())
                .map(|(key, record)| (key.clone(), record.clone()))
                .collect(),
        }
    }

    /// Returns whether the plan changes anything that outlives a restart.
    pub(super) fn is_lasting(&self, plan: &Plan) -> bool {
        plan.records.iter().any(|(key, after)| {
            let mut records = self.records.get(key).into_iter().chain(after);
            records.any(|record| record.lease.is_none())
        })
    }

    /// Makes the planned change, and keeps it for watches.
    pub(super) fn apply(&mut self, plan: Plan) {
        self.revision = plan.revision;
        let mut changes = Vec::with_capacity(plan.records.len());
        for (key, record) in plan.records {
            match record {
                Some(record) => {
                    changes.push(Change::Put(key.clone(), record.clone()));
                    self.records.insert(key, record);
                }
                None => {
                    self.records.remove(&key);
                    changes.push(Change::Delete(key));
                }
            }
        }
        let batch = Batch {
            revision: plan.revision,
            changes,
        };
        self.history_bytes += size(&batch);
        self.history.push_back(batch);
        while self.history.len() > HISTORY_COMMITS || self.history_bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= size(&oldest);
            self.forgotten = oldest.revision;
        }
    }

    /// Returns the first commit after that revision that changes the prefixes. Moves the revision
    /// to the last commit that it checked.
    pub(super) fn next_batch(&self, prefixes: &[String], after: &mut u64) -> Result<Option<Batch>> {
        if *after < self.forgotten {
            return Err(StoreError::Compacted(self.forgotten));
        }
        let first = self
            .history
            .partition_point(|batch| batch.revision <= *after);
        for batch in self.history.range(first..) {
            *after = batch.revision;
            let watched = |change: &&Change| {
                let (Change::Put(key, _) | Change::Delete(key)) = change;
                prefixes.iter().any(|prefix| key.starts_with(prefix))
            };
            let changes: Vec<_> = batch.changes.iter().filter(watched).cloned().collect();
            if !changes.is_empty() {
                return Ok(Some(Batch {
                    revision: batch.revision,
                    changes,
                }));
            }
        }
        Ok(None)
    }
}

fn size(batch: &Batch) -> usize {
    let value = |change: &Change| match change {
        Change::Put(_, entry) => entry.value.len(),
        Change::Delete(_) => 0,
    };
    batch.changes.iter().map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_lease_is_over_before_its_keys_are_removed() {
        let mut state = State::after_restart(None);
        let now = Instant::now();
        let lease = state.create_lease(Duration::from_secs(2), now);
        let end = now + Duration::from_secs(2);
        let write = Write::Put {
            key: "leader".into(),
            value: vec![],
            lease: Some(lease),
        };
        let planned = state.plan(&[], vec![write], end);
        assert!(matches!(planned, Err(StoreError::LeaseLost)));
        let renewed = state.renew(lease, end);
        assert!(matches!(renewed, Err(StoreError::LeaseLost)));
    }
}
