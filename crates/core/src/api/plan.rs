//! The effect of a submission, on the wire.

use serde::{Deserialize, Serialize};

use super::Unit;

/// The body of `POST plan` (not in fleet 1.0): units to submit and launch, each with its content or
/// options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanBody {
    /// The units. They are planned together, as if submitted in this order.
    pub units: Vec<Unit>,
}

/// The answer to `POST plan`: what `start --replace` would do with these units now. Planning
/// changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    /// The registry revision at which everything here was read.
    pub registry_revision: u64,
    /// The planned units, in the order of the request.
    pub units: Vec<PlannedUnit>,
}

/// One unit of a [`Plan`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedUnit {
    /// The unit.
    pub name: String,
    /// The reason for refusing the unit. If set, the other fields are empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `create`, `update` or `none`; empty if it would be refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// The update's effect in systemd on machines with the stable revision: `restart`, `reload` or
    /// `nothing`. `None` unless `action` is `update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// The difference, or the reason why there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The notes about the file, ordered by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How the unit's machines take turns. `None` if all may change at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<Batches>,
    /// How machines that run the unit, and do not match any more, stop it in turn. `None` if there
    /// are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stops: Option<Batches>,
    /// Whether the unit runs on some machine now, and would belong on none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nowhere: bool,
    /// All live and offline machines, ordered by id.
    pub machines: Vec<PlannedMachine>,
}

/// How machines take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Batches {
    /// The largest number of machines that change at once.
    pub machines: usize,
    /// The smallest number of turns.
    pub count: usize,
    /// The rule that limits them, such as `MaxUnavailable=10% of 40 machines`.
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
    /// The reason for the action.
    pub reason: String,
}
