//! The records that the leader writes during a rollout.

use serde::{Deserialize, Serialize};

use crate::machine::{MachineId, SessionId};
use crate::unit::UnitName;

/// The leader's permission for one machine to run one revision of a unit: `grants/<id>/<name>`.
///
/// It is valid for one session of the machine. A machine that was unreachable must not act on older
/// decisions: another machine may have its share of the budget by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The store revision that created the unit. A grant does not outlive its unit.
    pub unit: u64,
    /// The number of the revision.
    pub revision: u64,
    /// The machine's session at that time.
    pub session: SessionId,
    /// Whether the unit was available there before the rollout. If it was not, its failure does not
    /// count against the revision.
    pub was_available: bool,
    /// Whether the machine has had the revision available since. A later failure does not count
    /// against the revision. The leader sets it; the agent ignores it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proved: bool,
    /// Whether it permits to give the unit up, where the unit does not belong any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves: bool,
}

impl Grant {
    /// Returns whether it permits the same as the other. Each grant lets a unit leave once.
    pub fn permits_like(&self, other: &Self) -> bool {
        let permits = |it: &Self| (it.unit, it.revision, it.session);
        permits(self) == permits(other) && !self.leaves && !other.leaves
    }
}

/// The progress of a rollout: `rollouts/<name>`. It is apart from the unit's record, which every
/// agent receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The store revision that created the unit.
    pub unit: u64,
    /// The candidate's number.
    pub revision: u64,
    /// The number of machines that are done.
    pub done: usize,
    /// When that number last grew, in milliseconds since 1970.
    pub at: u64,
}

/// A decision of the leader: `events/<time and count>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was made, in milliseconds since 1970.
    pub at: u64,
    /// The decision.
    pub kind: EventKind,
    /// The unit concerned. `None` if it concerns no unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// The revision concerned; 0 if none.
    #[serde(default)]
    pub revision: u64,
    /// The machines concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineId>,
    /// The reason, for people.
    pub reason: String,
}

/// The kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// An engine became the leader.
    Leading,
    /// An update began.
    RolloutStarted,
    /// Machines may run a revision.
    Granted,
    /// Machines give a unit up: it does not belong there any more.
    Narrowed,
    /// A rollout is done: its candidate is stable.
    Promoted,
    /// A rollout stopped and waits for an operator.
    Paused,
    /// A rollback began.
    RollingBack,
    /// A rollback is done.
    RolledBack,
    /// A machine went offline.
    MachineOffline,
    /// A machine is online again.
    MachineOnline,
    /// A machine was offline for so long that it was forgotten.
    MachineForgotten,
}

impl EventKind {
    /// Returns the word that listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::RolloutStarted => "rollout-started",
            Self::Granted => "granted",
            Self::Narrowed => "narrowed",
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
