//! Whether what the registry says may be acted on, or must be held against what was seen before.
//!
//! A registry that was wiped, restored from a backup, or is another cluster's looks like an
//! instruction to stop everything. It is no such instruction. The machine keeps what runs, changes
//! nothing in such a registry, and reports it, until a person accepts the registry for that
//! cluster.

mod following;
mod identity;
mod judge;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::following::{Following, Heard, Log, Outcome};
pub use self::identity::{ClusterKey, Identity};
pub use self::judge::judge;
use self::judge::{is_newer, newest, unreadable};
use crate::record::{AcceptanceRecord, is_zero};
use crate::unit::UnitName;

/// The registry that this machine has acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its cluster id.
    pub cluster: String,
    /// The store revision that made its `cluster` key; 0 where an older version wrote this. A
    /// registry that was wiped and filled again has the same id, but created again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub made: u64,
    /// The newest store revision that was acted on.
    pub revision: u64,
    /// The newest revision that instructed this machine ([`crate::keys::instructs`]). A backup
    /// grows past `revision` by what all machines say of themselves as soon as they reach it; past
    /// this one it does not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub instructed: u64,
    /// It was older than that at some time since: its revisions mean nothing any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// The newest acceptance (its `at`) that was seen in it: an older one, in a backup say, counts
    /// no more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted: u64,
}

impl Seen {
    /// Whether more than the revisions differs, so that a later start must know of it.
    pub fn differs_from(&self, other: &Self) -> bool {
        let but_revisions = |seen: &Self| Self {
            revision: 0,
            instructed: 0,
            ..seen.clone()
        };
        but_revisions(self) != but_revisions(other)
    }
}

/// The memory of a machine about registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// It never acted on one.
    #[default]
    Never,
    /// It may have, but what it kept of that cannot be read: why, and what to do.
    Lost(String),
    /// It acted on this one.
    Of(Seen),
}

/// The judgement about the registry's present content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Act on it.
    Obey(Seen),
    /// It has no id yet, and this machine belongs to none: an engine may make it.
    New {
        /// The reason for the wait.
        reason: String,
    },
    /// Keep what runs.
    Hold {
        /// Why, and what to do.
        reason: String,
        /// The memory of it from now on.
        seen: Option<Seen>,
    },
}

/// Whether this machine follows the registry, for all parts of fleetd that change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The memory of this machine.
    pub memory: Memory,
    /// The last judgement.
    pub footing: Footing,
    /// Whether the registry is away since: it may come back as another one.
    pub away: bool,
}

/// The judgement about the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Footing {
    /// Nothing was read of it yet.
    #[default]
    Unheard,
    /// It has no id yet; see [`Judgement::New`].
    New,
    /// It is followed.
    Followed,
    /// It is held.
    Held(Held),
}

/// Why the registry is not followed, and what would happen on this machine if it were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The problem, and what to do.
    pub reason: String,
    /// Units that would be stopped and taken away.
    pub stops: Vec<UnitName>,
    /// Units that would come, and start where they are launched.
    pub starts: Vec<UnitName>,
    /// Units that would change.
    pub changes: Vec<UnitName>,
}

impl Default for Trust {
    /// Nothing is held against anything: for what runs without an agent beside it.
    fn default() -> Self {
        Self {
            memory: Memory::Never,
            footing: Footing::New,
            away: false,
        }
    }
}

impl Trust {
    /// Returns the first state of a machine with this memory.
    pub fn of(memory: Memory) -> Self {
        Self {
            memory,
            footing: Footing::Unheard,
            away: false,
        }
    }

    /// Whether this machine's engine may lead.
    pub fn may_lead(&self) -> bool {
        matches!(self.footing, Footing::New | Footing::Followed)
    }

    /// Why the registry is held; none if it is not.
    pub fn held(&self) -> Option<&Held> {
        match &self.footing {
            Footing::Held(held) => Some(held),
            _ => None,
        }
    }

    /// The cluster that this machine belongs to.
    pub fn belongs_to(&self) -> Option<&str> {
        match &self.memory {
            Memory::Of(seen) => Some(&seen.cluster),
            Memory::Never | Memory::Lost(_) => None,
        }
    }
}

/// The text for a machine that cannot read its memory.
pub const LOST: &str = "desired.json and seen.json in the state directory cannot be read, so nobody knows which registry this machine belongs \
     to: keeping what runs; to take the registry as it is, stop fleetd here, remove desired.json, and start it";

/// The next step for a person if a registry is held.
pub const ACCEPT: &str = "to accept it as it is, for the whole fleet: fleetctl accept-registry";

/// Why a registry cannot be accepted here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAcceptable {
    /// There is nothing to accept.
    #[error("the registry is followed here, and nothing has to be accepted")]
    Followed,
    /// The machine has not read it yet.
    #[error("this machine has not read the registry yet; try again")]
    Unheard,
    /// The cluster to accept it for is unknown.
    #[error("{0}")]
    Unknown(String),
    /// An acceptance would replace another that may contain more.
    #[error("the newest acceptance (the key `acceptance`) cannot be read: {0}")]
    Newer(String),
    /// Its id must be fixed or removed first.
    #[error("{0}; restore that key, or delete it: then another id is made")]
    Unreadable(String),
    /// It is not what was shown to the person who accepts it.
    #[error(
        "the registry is of cluster {now:?} by now, and not of {shown:?}, which was to be accepted; look again"
    )]
    Changed {
        /// The id that the person saw.
        shown: String,
        /// The present id.
        now: String,
    },
}

/// The record by which the machines of this one's cluster obey that registry from now on. `shown`:
/// the cluster id that the person has seen, empty for none. `new_id` is for a registry that has no
/// id; then the `cluster` key is to be made with it in the same commit.
pub fn accept(
    trust: &Trust,
    identity: &Identity,
    shown: &str,
    by: &str,
    now: u64,
    new_id: &str,
) -> Result<AcceptanceRecord, NotAcceptable> {
    let seen = match (&trust.footing, &trust.memory) {
        (Footing::Unheard, _) => return Err(NotAcceptable::Unheard),
        (Footing::Held(_), Memory::Of(seen)) => seen,
        (Footing::Held(held), _) => return Err(NotAcceptable::Unknown(held.reason.clone())),
        (Footing::New | Footing::Followed, _) => return Err(NotAcceptable::Followed),
    };
    let id = match &identity.cluster {
        ClusterKey::Absent => "",
        ClusterKey::Is { id, .. } => id,
        ClusterKey::Unreadable(why) => return Err(NotAcceptable::Unreadable(unreadable(why))),
    };
    if id != shown {
        return Err(NotAcceptable::Changed {
            shown: shown.to_owned(),
            now: id.to_owned(),
        });
    }
    if let Some(why) = &identity.newer_acceptance {
        return Err(NotAcceptable::Newer(why.clone()));
    }
    let cluster = if id.is_empty() { new_id } else { id };
    // Newer than each that this machine has seen, whatever the clock says; than its own memory in
    // any case.
    let next = newest(seen.accepted, identity.accepted_at()).wrapping_add(1);
    let next = newest(next, now);
    Ok(AcceptanceRecord {
        from: seen.cluster.clone(),
        cluster: cluster.to_owned(),
        at: match is_newer(next, seen.accepted) {
            true => next,
            false => seen.accepted.wrapping_add(1),
        },
        by: by.to_owned(),
    })
}
