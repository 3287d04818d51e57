//! A machine's report about a unit beyond its state, for wide tables and documents.

use fleet_core::api::UnitReport;
use serde::Serialize;

use crate::describe;

/// A machine's report about a unit beyond its state.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::commands) struct Details {
    pub(super) revision: u64,
    /// When systemd last changed its state, in RFC 3339. `None` if it never did.
    pub(super) since: Option<String>,
    pub(super) restarts: u32,
    pub(super) result: String,
    ready: bool,
}

impl From<&UnitReport> for Details {
    fn from(report: &UnitReport) -> Self {
        Self {
            revision: report.revision,
            since: (report.since > 0).then(|| describe::timestamp(report.since)),
            restarts: report.restarts,
            result: report.result.clone(),
            ready: report.ready,
        }
    }
}
