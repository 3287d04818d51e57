//! Machines and what they report, as the registry holds them.

use serde::{Deserialize, Serialize};

use crate::machine::{Metadata, MetadataOverlay, Scheduling, SessionId};

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

/// A machine that was here at some time: `known/<id>`. Unlike its presence it stays, so that a machine that is
/// switched off is missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The record that the machine itself wrote.
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
    /// The limits on starting units there.
    #[serde(default, skip_serializing_if = "Scheduling::is_normal")]
    pub scheduling: Scheduling,
}
