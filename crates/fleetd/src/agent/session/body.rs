//! What a machine says of itself and its units.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::report_base::Units;

/// Why a report says nothing of any unit.
const NOT_LOOKED: &str = "fleetd has just started there, and has not looked at its units yet";
const SHUTS_DOWN: &str = "it is shutting down";

/// What the agent has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct Outgoing {
    pub(in crate::agent) said: ReportBody,
    /// systemd has a job for one of its units.
    pub(in crate::agent) is_moving: bool,
}

/// What a report says: its units are compared and copied at no cost while they are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct ReportBody {
    /// None before the first look at them.
    pub(in crate::agent) units: Option<Arc<Units>>,
    pub(in crate::agent) problems: BTreeMap<String, String>,
    /// The host is shutting down: nothing else is said.
    pub(in crate::agent) shuts_down: bool,
}

impl ReportBody {
    pub(super) fn shuts_down() -> Self {
        Self {
            shuts_down: true,
            ..Self::default()
        }
    }

    /// Why it says nothing of any unit.
    pub(super) fn unknown(&self) -> Option<String> {
        let why = match (self.shuts_down, &self.units) {
            (true, _) => SHUTS_DOWN,
            (false, None) => NOT_LOOKED,
            (false, Some(_)) => return None,
        };
        Some(why.to_owned())
    }
}
