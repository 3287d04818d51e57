//! What a leader decided: what it changes, and how people are told, in one commit.

use fleet_core::record::{self, Event};
use serde::Serialize;

use crate::store::{self, Guard, Write};

/// How many machines or keys one commit is about. etcd takes 128 operations, of guards and of
/// writes; there are a few for the decision itself.
pub(super) const BATCH: usize = 100;

/// A decision. The leader's claim guards it, whatever else does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) guards: Vec<Guard>,
    pub(super) writes: Vec<Write>,
    pub(super) events: Vec<Event>,
}

impl Decision {
    /// It is off if that key was written again.
    pub(super) fn unless_modified(&mut self, key: String, at: u64) {
        self.guards.push(Guard::Unmodified(key, at));
    }

    /// Writes a key that has no lease.
    pub(super) fn put<T: Serialize>(&mut self, key: String, value: &T) {
        self.writes.push(Write::Put {
            key,
            value: record::encode(value),
            lease: None,
        });
    }

    /// Whether one commit can be made of both, whose events are among their writes, and which the
    /// claim guards.
    pub(super) fn fits(&self, other: &Self) -> bool {
        let guards = self.guards.len() + other.guards.len() + 1;
        store::fits(guards, self.writes.iter().chain(&other.writes))
    }

    /// Both are to land, or none.
    pub(super) fn join(&mut self, other: Self) {
        self.guards.extend(other.guards);
        self.writes.extend(other.writes);
        self.events.extend(other.events);
    }

    /// Removes a key unless it was written again.
    pub(super) fn delete(&mut self, key: String, at: u64) {
        self.unless_modified(key.clone(), at);
        self.writes.push(Write::Delete(key));
    }
}
