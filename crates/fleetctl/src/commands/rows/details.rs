//! What a machine says of a unit beyond its state, as wide tables and documents show it.

use fleet_core::record::UnitReport;
use serde::Serialize;

use crate::describe;

/// What a machine says of a unit beyond its state.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::commands) struct Details {
    pub(super) revision: u64,
    /// RFC 3339; none if systemd never changed its state.
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
