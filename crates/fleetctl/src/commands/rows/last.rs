//! The outcome of a unit's last rollout in documents.

use fleet_core::api::LastRollout;
use serde::Serialize;

use crate::describe::timestamp;

/// The outcome of the last rollout.
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
