//! The document of `rollout status --output json`.

use fleet_core::api::{RolloutMachine, RolloutPolicy, RolloutProgress, RolloutStatus};
use serde::Serialize;

use super::super::rows::{GlobalRow, LastRow};
use crate::describe::timestamp;

/// The rollout of a unit. Times are RFC 3339.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RolloutDocument {
    registry_revision: u64,
    #[serde(flatten)]
    row: GlobalRow,
    /// When the phase began. `None` without a rollout.
    since: Option<String>,
    last: Option<LastRow>,
    policy: RolloutPolicy,
    progress: Option<ProgressRow>,
    waits: Option<String>,
    machines: Vec<MachineRow>,
}

impl From<RolloutStatus> for RolloutDocument {
    fn from(status: RolloutStatus) -> Self {
        Self {
            registry_revision: status.registry_revision,
            row: status.row.into(),
            since: status.since.map(timestamp),
            last: status.last.as_ref().map(LastRow::from),
            policy: status.policy,
            progress: status.progress.map(ProgressRow::from),
            waits: status.waits,
            machines: status.machines.into_iter().map(MachineRow::from).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgressRow {
    done: usize,
    at: String,
}

impl From<RolloutProgress> for ProgressRow {
    fn from(progress: RolloutProgress) -> Self {
        Self {
            done: progress.done,
            at: timestamp(progress.at),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MachineRow {
    machine: String,
    ip: String,
    live: bool,
    offline_since: Option<String>,
    scheduling: Option<String>,
    wanted: Option<u64>,
    reason: String,
    revision: Option<u64>,
    granted: Option<u64>,
    ready: bool,
    available: bool,
    failed: Option<String>,
    deferred: bool,
}

impl From<RolloutMachine> for MachineRow {
    fn from(machine: RolloutMachine) -> Self {
        Self {
            machine: machine.machine_id,
            ip: machine.primary_ip,
            live: machine.live,
            offline_since: machine.offline_since.map(timestamp),
            scheduling: machine.scheduling,
            wanted: machine.wanted,
            reason: machine.reason,
            revision: machine.revision,
            granted: machine.granted,
            ready: machine.ready,
            available: machine.available,
            failed: machine.failed,
            deferred: machine.deferred,
        }
    }
}
