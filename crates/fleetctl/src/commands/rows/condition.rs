//! One condition of a unit in documents.

use fleet_core::api::Condition;
use serde::Serialize;

use crate::describe::timestamp;

/// One condition of a unit, true or false.
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
