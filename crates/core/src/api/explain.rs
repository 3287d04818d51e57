//! Why a unit runs on a machine or does not, on the wire.

use serde::{Deserialize, Serialize};

/// `GET explain/NAME` (ours), for every machine or, with `?machineID=`, for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// The registry revision that all of this was read at.
    pub registry_revision: u64,
    /// The unit.
    pub unit: String,
    /// Live and offline machines, ordered by id.
    pub machines: Vec<ExplainedMachine>,
}

/// One machine of an [`Explanation`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExplainedMachine {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The address that listings show.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
    /// The conditions, in this order. The first that does not hold keeps the unit away.
    pub predicates: Vec<Predicate>,
    /// The conclusion: a sentence.
    pub verdict: String,
    /// The change that would help: a sentence; `None` if all is as wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_change: Option<String>,
}

/// One condition that a unit must meet to run on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Predicate {
    /// Such as `global` or `metadata az`.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why, or why not.
    pub reason: String,
}
