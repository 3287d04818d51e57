//! What `rollout status --output json` shows.

use fleet_core::api::{
    Condition, LastRollout, RolloutMachine, RolloutPolicy, RolloutProgress, RolloutStatus,
};
use serde::Serialize;

use super::super::list_globals::GlobalRow;
use crate::describe::timestamp;

/// A unit on its way to a revision. Times are RFC 3339.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RolloutDocument {
    registry_revision: u64,
    #[serde(flatten)]
    row: GlobalRow,
    /// Since when it is in its phase.
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

/// How the last rollout ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::commands) struct LastRow {
    revision: u64,
    ended: String,
    reason: String,
    at: String,
}

impl From<&LastRollout> for LastRow {
    fn from(last: &LastRollout) -> Self {
        Self {
            revision: last.revision,
            ended: last.ended.clone(),
            reason: last.reason.clone(),
            at: timestamp(last.at),
        }
    }
}

/// One thing that holds of a unit, or does not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::commands) struct ConditionRow {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    since: Option<String>,
}

impl From<Condition> for ConditionRow {
    fn from(condition: Condition) -> Self {
        Self {
            kind: condition.kind,
            status: condition.status,
            reason: condition.reason,
            message: condition.message,
            since: condition.since.map(timestamp),
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
