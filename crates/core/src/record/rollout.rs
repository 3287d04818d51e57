//! The records that the leader writes during a rollout.

use serde::{Deserialize, Serialize};

use crate::machine::{MachineId, SessionId};
use crate::unit::UnitName;

/// The leader's permission for one machine to run one revision of a unit: `grants/<id>/<name>`.
///
/// It holds for one presence of the machine. A machine that was cut off must not act on older
/// decisions: another machine may have its share of the budget by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The store revision that made the unit: a grant does not outlive it.
    pub unit: u64,
    /// The number of the revision.
    pub revision: u64,
    /// The machine's presence at that time.
    pub session: SessionId,
    /// Whether the unit was available there before the rollout. If it was not, its failure says
    /// nothing about the revision.
    pub was_available: bool,
    /// Whether the machine has had the revision available since: what happens to it later says nothing about the
    /// revision. Marked by the leader; the agent takes no notice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proved: bool,
}

impl Grant {
    /// Whether it permits the same as the other.
    pub fn permits_like(&self, other: &Self) -> bool {
        (self.unit, self.revision, self.session) == (other.unit, other.revision, other.session)
    }
}

/// How far a rollout has come: `rollouts/<name>`. Apart from the unit's record, which every agent is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The store revision that made the unit.
    pub unit: u64,
    /// The candidate's number.
    pub revision: u64,
    /// How many machines were done with it.
    pub done: usize,
    /// When that last became more, in milliseconds since 1970.
    pub at: u64,
}

/// A decision of the leader: `events/<time and count>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The decision.
    pub kind: EventKind,
    /// About which unit, if about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// About which revision of it; 0 if about none.
    #[serde(default)]
    pub revision: u64,
    /// About which machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineId>,
    /// Why, for people.
    pub reason: String,
}

/// The kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// An engine leads.
    Leading,
    /// An update begins.
    RolloutStarted,
    /// Machines may run a revision.
    Granted,
    /// A rollout is done: its candidate is stable.
    Promoted,
    /// A rollout stopped and waits for a person.
    Paused,
    /// A rollback began.
    RollingBack,
    /// It is back.
    RolledBack,
    /// A machine went offline.
    MachineOffline,
    /// A machine is back.
    MachineOnline,
    /// A machine that was offline for long is forgotten.
    MachineForgotten,
}

impl EventKind {
    /// The word that listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::RolloutStarted => "rollout-started",
            Self::Granted => "granted",
            Self::Promoted => "promoted",
            Self::Paused => "paused",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::MachineOffline => "machine-offline",
            Self::MachineOnline => "machine-online",
            Self::MachineForgotten => "machine-forgotten",
        }
    }
}
