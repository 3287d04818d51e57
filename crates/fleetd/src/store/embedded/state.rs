//! What the embedded store holds, and what a commit makes of it: values, without a lock, a clock or a disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Batch, Change, Entry, Guard, LeaseId, Result, Snapshot, StoreError, Write};

/// How many commits a watch can lag behind. A list costs little here, so this is generous, not needed.
const HISTORY_COMMITS: usize = 4096;
/// The same limit in bytes of values, since a commit may be large.
const HISTORY_BYTES: usize = 16 << 20;
/// etcd starts here; 0 is "before everything".
const FIRST_REVISION: u64 = 1;

/// All keys and leases, and the latest commits.
#[derive(Clone)]
pub(super) struct State {
    pub(super) revision: u64,
    records: BTreeMap<String, Entry>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    /// The latest commits, oldest first, whole.
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

/// What a commit makes of the records: each one's new content, or none.
pub(super) struct Plan {
    pub(super) revision: u64,
    records: BTreeMap<String, Option<Entry>>,
}

impl Plan {
    /// Whether it changes nothing, not even the revision.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl State {
    /// What a restart left: nothing under a lease.
    pub(super) fn after_restart(snapshot: Option<Snapshot>) -> Self {
        // The restart took the leased keys, which is a change like any other: it has a revision.
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

    /// Gives every lease its whole time again, and answers them.
    pub(super) fn extend_leases(&mut self, now: Instant) -> Vec<LeaseId> {
        for lease in self.leases.values_mut() {
            lease.ends = now + lease.ttl;
        }
        self.leases.keys().copied().collect()
    }

    /// From now on leases have other names than in a copy of it.
    pub(super) fn skip_leases(&mut self, from: i64) {
        self.last_lease = self.last_lease.max(from);
    }

    /// What the writes come to, if the guards hold.
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

    /// The end of a lease's keys.
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

    /// A lease without keys.
    pub(super) fn create_lease(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.last_lease += 1;
        let lease = LeaseId(self.last_lease);
        let ends = now + ttl;
        self.leases.insert(lease, Lease { ttl, ends });
        lease
    }

    /// Moves a lease's end, unless it is over.
    pub(super) fn renew(&mut self, lease: LeaseId, now: Instant) -> Result<()> {
        match self.leases.get_mut(&lease) {
            Some(lease) if now < lease.ends => {
                lease.ends = now + lease.ttl;
                Ok(())
            }
            _ => Err(StoreError::LeaseLost),
        }
    }

    /// From now on nothing can be put under the lease. What is under it already goes by a plan.
    pub(super) fn close(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// When the lease ends, unless it is renewed or gone already.
    pub(super) fn end_of(&self, lease: LeaseId) -> Option<Instant> {
        self.leases.get(&lease).map(|lease| lease.ends)
    }

    fn is_alive(&self, lease: LeaseId, now: Instant) -> bool {
        self.leases
            .get(&lease)
            .is_some_and(|lease| now < lease.ends)
    }

    /// All entries below these prefixes, none of which covers another.
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

    /// What outlives a restart once the plan is applied.
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

    /// Whether the plan changes anything that outlives a restart.
    pub(super) fn is_lasting(&self, plan: &Plan) -> bool {
        plan.records.iter().any(|(key, after)| {
            let mut records = self.records.get(key).into_iter().chain(after);
            records.any(|record| record.lease.is_none())
        })
    }

    /// Makes the planned change, and remembers it for watches.
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

    /// The first commit after that revision that touches the prefixes; moves the revision to where it looked.
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
    fn a_lease_whose_time_is_up_is_over_even_before_anyone_ends_it() {
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
