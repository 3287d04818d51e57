//! A machine's report about a unit, as the API sends it.

use serde::{Deserialize, Serialize};

use super::is_zero;
use crate::record;

/// A machine's report about one unit (not in fleet 1.0).
///
/// It has the members of the stored [`record::UnitReport`]. The types are separate, so that a new
/// storage format changes nothing for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitReport {
    /// systemd's load state, such as `loaded`.
    pub load: String,
    /// systemd's active state, such as `active`.
    pub active: String,
    /// systemd's sub state, such as `running`.
    pub sub: String,
    /// The revision whose file is in place.
    pub revision: u64,
    /// The compatible hash of that revision.
    pub hash: String,
    /// When systemd last changed the unit's state, in milliseconds since 1970; 0 if never.
    pub since: u64,
    /// The number of restarts that systemd made by itself.
    pub restarts: u32,
    /// systemd's `Result`, such as `success` or `exit-code`; empty for kinds without one.
    pub result: String,
    /// Whether fleet has started the unit there.
    pub launched: bool,
    /// Whether the unit is ready at this moment.
    pub ready: bool,
    /// Whether the unit has been ready for `MinReadySec` without a restart.
    pub available: bool,
    /// Whether it was available for so long that a later failure is not its revision's fault.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    /// Whether systemd skipped its start because of a condition in its file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Why it cannot become ready by itself. `None` if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether it waits for the leader's grant of another revision.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// Whether it does not belong there any more, and waits for the leader's grant to stop.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The store revision of the newest grant that the report takes into account; 0 if none.
    #[serde(skip_serializing_if = "is_zero")]
    pub grant: u64,
}

impl From<record::UnitReport> for UnitReport {
    fn from(stored: record::UnitReport) -> Self {
        Self {
            load: stored.load,
            active: stored.active,
            sub: stored.sub,
            revision: stored.revision,
            hash: stored.hash,
            since: stored.since,
            restarts: stored.restarts,
            result: stored.result,
            launched: stored.launched,
            ready: stored.ready,
            available: stored.available,
            settled: stored.settled,
            skipped: stored.skipped,
            failed: stored.failed,
            deferred: stored.deferred,
            leaving: stored.leaving,
            grant: stored.grant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_report_reaches_clients_with_every_member() {
        let stored = record::UnitReport {
            load: "loaded".to_owned(),
            active: "failed".to_owned(),
            sub: "dead".to_owned(),
            revision: 1,
            hash: "ab".to_owned(),
            since: 2,
            restarts: 3,
            result: "exit-code".to_owned(),
            launched: true,
            ready: true,
            available: true,
            settled: true,
            skipped: true,
            failed: Some("it failed".to_owned()),
            deferred: true,
            leaving: true,
            grant: 4,
        };
        for stored in [stored, record::UnitReport::default()] {
            let sent = UnitReport::from(stored.clone());
            assert_eq!(
                serde_json::to_string(&sent).expect("JSON"),
                serde_json::to_string(&stored).expect("JSON")
            );
        }
    }
}
