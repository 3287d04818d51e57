//! Why a unit runs on a machine or does not, on the wire.

use serde::{Deserialize, Serialize};

/// The answer to `GET explain/NAME` (not in fleet 1.0): for every machine, or for one with
/// `?machineID=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// The registry revision at which everything here was read.
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
    /// The conditions, in the order of evaluation. The first one that fails keeps the unit away.
    pub predicates: Vec<Predicate>,
    /// The conclusion, as a sentence.
    pub verdict: String,
    /// The change that would help, as a sentence. `None` if everything is as wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_change: Option<String>,
}

/// One condition that a unit must meet to run on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Predicate {
    /// The condition's name, such as `global` or `metadata az`.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// The reason why it holds or fails.
    pub reason: String,
}
