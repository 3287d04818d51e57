//! Machines and what they report, as the registry holds them.

use serde::{Deserialize, Serialize};

use crate::machine::{Metadata, MetadataOverlay, Scheduling, SessionId};

/// A machine's presence: `machines/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// The address that listings show.
    pub primary_ip: String,
    /// The metadata from fleet.conf. Run-time metadata is kept apart, in [`MetadataRecord`].
    pub metadata: Metadata,
    /// The machine's version of fleetd.
    pub version: String,
    /// The lease that this presence lives under; see [`Grant`](super::Grant).
    #[serde(default)]
    pub session: SessionId,
}

/// A known machine: `known/<id>`. It outlives the presence, so a machine that is switched off is
/// missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The last record that the machine itself wrote.
    pub machine: MachineRecord,
    /// When the leader noticed that it is offline, in milliseconds since 1970. `None` while it is
    /// live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_since: Option<u64>,
}

/// The settings made for a machine at run time: `metadata/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataRecord {
    /// The metadata that is applied over the machine's own.
    pub set: MetadataOverlay,
    /// The limits on starting units there.
    #[serde(default, skip_serializing_if = "Scheduling::is_normal")]
    pub scheduling: Scheduling,
}
