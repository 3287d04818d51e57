//! The effect of a submission, on the wire.

use serde::{Deserialize, Serialize};

use super::Unit;

/// The body of `POST plan` (ours): units as they would be submitted and launched. Names with a content or options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanBody {
    /// They are looked at together, as if submitted in this order.
    pub units: Vec<Unit>,
}

/// The answer to `POST plan`: what `start --replace` of these units would do now. Nothing was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    /// The registry revision that all of this was read at.
    pub registry_revision: u64,
    /// In the order of the question.
    pub units: Vec<PlannedUnit>,
}

/// One unit of a [`Plan`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedUnit {
    /// The unit.
    pub name: String,
    /// Why it would be refused; then nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `create`, `update` or `none`; empty if it would be refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// `restart`, `reload` or `nothing`: what the change asks of systemd where the stable revision runs. Absent unless
    /// it is an update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// The difference, or why there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Notes about the file, by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How its machines take turns; absent if none has to wait for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<Batches>,
    /// Every machine, live and offline, ordered by id.
    pub machines: Vec<PlannedMachine>,
}

/// How machines take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Batches {
    /// How many machines at a time, at most.
    pub machines: usize,
    /// How many times, at least.
    pub count: usize,
    /// How they are chosen, such as `MaxUnavailable=10% of 40 machines`.
    pub reason: String,
}

/// One machine of a [`PlannedUnit`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedMachine {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The address that listings show.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
    /// `start`, `restart`, `reload`, `none`, `stop`, `not-matched` or `deferred`.
    pub action: String,
    /// Why.
    pub reason: String,
}
