//! Machines and what they report, as the registry holds them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_zero;
use crate::machine::{Metadata, MetadataOverlay};
use crate::unit::UnitName;

/// A machine's presence: `machines/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// The address that listings show.
    pub primary_ip: String,
    /// From fleet.conf; what was set at run time is kept apart, in [`MetadataRecord`].
    pub metadata: Metadata,
    /// The version of fleetd there.
    pub version: String,
    /// The lease that this presence lives under; see [`Grant`](super::Grant).
    #[serde(default)]
    pub session: SessionId,
}

/// One uninterrupted presence of a machine: the id of its lease.
pub type SessionId = i64;

/// A machine that was here at some time: `known/<id>`. Unlike its presence it stays, so that a machine that is
/// switched off is missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What it said of itself.
    pub machine: MachineRecord,
    /// When the leader noticed that it is offline, in milliseconds since 1970; none while it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_since: Option<u64>,
}

/// Set for a machine at run time: `metadata/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataRecord {
    /// Laid over the machine's own metadata.
    pub set: MetadataOverlay,
    /// What may start there.
    #[serde(default, skip_serializing_if = "Scheduling::is_normal")]
    pub scheduling: Scheduling,
}

/// What may start on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// Everything that belongs there.
    #[default]
    Normal,
    /// Nothing new or updated; what runs goes on.
    Cordoned,
    /// Nothing; what ran is stopped.
    Drained,
}

impl Scheduling {
    /// Whether anything may start.
    pub fn is_normal(&self) -> bool {
        *self == Self::Normal
    }

    /// The word that listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Cordoned => "cordoned",
            Self::Drained => "drained",
        }
    }
}

/// What one machine's systemd says of fleet's units there: `reports/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// The units whose files fleet has put there.
    pub units: BTreeMap<UnitName, UnitReport>,
    /// What is wrong there, and with what: a unit, a file, the state directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<String, String>,
    /// Why it says nothing of its units: they were not looked at yet, say. None where `units` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// One unit of a [`MachineReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitReport {
    /// systemd's load state, such as `loaded`.
    pub load: String,
    /// systemd's active state, such as `active`.
    pub active: String,
    /// systemd's sub state, such as `running`.
    pub sub: String,
    /// The revision whose file is in place.
    pub revision: u64,
    /// That revision's compatible hash.
    pub hash: String,
    /// When systemd last changed its state, in milliseconds since 1970; 0 if it never did.
    pub since: u64,
    /// How often systemd restarted it by itself (`NRestarts`).
    #[serde(default)]
    pub restarts: u32,
    /// systemd's `Result`, such as `success` or `exit-code`; empty for kinds that have none.
    #[serde(default)]
    pub result: String,
    /// Whether fleet has started it there. Nothing else tells a oneshot that ran from one that is only loaded:
    /// systemd forgets both at once.
    #[serde(default)]
    pub launched: bool,
    /// Whether it does what it should, at this moment.
    pub ready: bool,
    /// Whether it is ready, and has been for `MinReadySec` without a restart.
    #[serde(default)]
    pub available: bool,
    /// Whether systemd skipped its start because of a condition in its file (`ConditionPathExists=` and others). It is
    /// ready then: it does what its file asks for on such a machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Why it will not become ready by itself, for people; none while it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether it has another revision than the registry's stable one, and waits with that for the leader's grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// The store revision that wrote the grant which all of this takes into account; 0 without one. Until the newest
    /// grant is confirmed so, the machine may be about to act on it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub grant: u64,
}
