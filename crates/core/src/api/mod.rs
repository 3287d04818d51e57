//! The wire types of API v1: the shapes of fleet 1.0, with additions.

mod events;
mod explain;
mod plan;
mod registry;
mod rollouts;
mod unit_report;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::events::{EventList, EventRow};
pub use self::explain::{ExplainedMachine, Explanation, Predicate};
pub use self::plan::{Batches, Plan, PlanBody, PlannedMachine, PlannedUnit};
pub use self::registry::{AcceptBody, RegistryStanding};
pub use self::rollouts::{
    Condition, LastRollout, OrderAction, OrderBody, RevisionContent, RevisionList, RevisionRow,
    RolloutList, RolloutMachine, RolloutPolicy, RolloutProgress, RolloutRow, RolloutStatus,
    SchedulingBody,
};
pub use self::unit_report::UnitReport;
use crate::problem::ProblemKind;
use crate::unit::{Content, UnitOption};

/// The path of API v1.
pub const V1: &str = "/fleet/v1";

/// A unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Unit {
    /// The file's bytes in base64, which take precedence over `options`. Not in fleet 1.0: sent
    /// with `?content=true`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "content_to_base64",
        deserialize_with = "content_from_base64"
    )]
    pub content: Option<Content>,
    /// The state that machines report. Requests cannot set it.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub current_state: String,
    /// The target state: `inactive`, `loaded`, `launched`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub desired_state: String,
    /// The machine it is scheduled to. Never set for a global unit.
    #[serde(
        rename = "machineID",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub machine_id: String,
    /// The unit's name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub name: String,
    /// The file as a list of options.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub options: Vec<UnitOption>,
    /// The number of the newest revision; 0 if unknown. Not in fleet 1.0: sent with
    /// `?content=true`.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Reads `null` as a missing member, as Go does: clients of fleet 1.0 may send it.
fn null_is_absent<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn content_to_base64<S: Serializer>(
    content: &Option<Content>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    content
        .as_ref()
        .map(|content| STANDARD.encode(content.as_bytes()))
        .serialize(serializer)
}

fn content_from_base64<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Content>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| {
            STANDARD
                .decode(text)
                .map(Content::from)
                .map_err(de::Error::custom)
        })
        .transpose()
}

/// A page of units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitPage {
    /// The token for the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// The units, ordered by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    /// The machine id.
    pub id: String,
    /// The metadata that units are matched against.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The address that listings show.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    /// `cordoned` or `drained` (not in fleet 1.0); empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scheduling: String,
    /// The machine's version of fleetd. Not in fleet 1.0: sent with `?details=true`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// A page of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePage {
    /// The machines, ordered by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// The token for the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The state of one unit, as reported by one machine's systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitState {
    /// The compatible hash of the revision in place.
    pub hash: String,
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The unit.
    pub name: String,
    /// systemd's active state, such as `active`.
    pub systemd_active_state: String,
    /// systemd's load state, such as `loaded`.
    pub systemd_load_state: String,
    /// systemd's sub state, such as `running`.
    pub systemd_sub_state: String,
    /// The machine's whole report about the unit. Not in fleet 1.0: sent with `?details=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<UnitReport>,
}

/// A page of states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatePage {
    /// The token for the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// The addresses of the live machines in this page. Not in fleet 1.0: sent with `?stream=true`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, String>,
    /// The states, ordered by unit, then machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<UnitState>,
}

/// The answer to `GET status/NAME` (not in fleet 1.0): a unit on every machine, at one registry
/// revision.
///
/// With `?after=REVISION` the request waits up to 30 seconds for a change of the unit or the
/// machines after that registry revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitStatus {
    /// The registry revision at which everything here was read.
    pub registry_revision: u64,
    /// The unit.
    pub name: String,
    /// The target state.
    pub desired_state: String,
    /// Whether it is a global unit.
    pub global: bool,
    /// The `Description=` of the file; empty if it has none.
    pub description: String,
    /// The stable revision's number.
    pub revision: u64,
    /// The stable revision's compatible hash.
    pub hash: String,
    /// The revision being rolled out. `None` without a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<UnitCandidate>,
    /// The outcome of the last rollout. `None` before the first rollout has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRollout>,
    /// Every live machine, ordered by id.
    pub machines: Vec<UnitOnMachine>,
}

impl UnitStatus {
    /// Returns the number of the newest revision: the candidate's if there is one.
    pub fn newest(&self) -> u64 {
        self.candidate
            .as_ref()
            .map_or(self.revision, |candidate| candidate.revision)
    }
}

/// The candidate of a [`UnitStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitCandidate {
    /// The revision's number.
    pub revision: u64,
    /// The revision's compatible hash.
    pub hash: String,
    /// `rolling`, `paused` or `rolling-back`.
    pub phase: String,
    /// The reason for the phase; empty while it rolls because it was submitted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// One machine of a [`UnitStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitOnMachine {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The address that listings show.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
    /// Whether the unit belongs on the machine.
    pub placed: bool,
    /// Whether the machine takes the newest revision only after `uncordon`. No client should wait
    /// for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// The reason why the unit belongs there, or does not.
    pub reason: String,
    /// The machine's report. `None` if fleet has put no file there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<UnitReport>,
    /// The problem with the unit on the machine. `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The answer to `GET status` (not in fleet 1.0): a summary of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// The registry revision at which everything here was read.
    pub registry_revision: u64,
    /// The registry's random id; empty until an engine has created it.
    pub cluster: String,
    /// The machine whose engine leads; empty if none leads.
    pub leader: String,
    /// The number of live machines.
    pub machines: usize,
    /// The machines that were live in recent days and are offline now, ordered by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<OfflineMachine>,
    /// The number of units.
    pub units: usize,
    /// The problems, ordered by machine and subject.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// A machine that is offline: switched off, unreachable, or without a running fleetd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OfflineMachine {
    /// The machine id.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The last known address.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    /// When it went offline, in milliseconds since 1970. `None` until a leader has noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// A problem of a machine. Without a machine, it is about a unit or the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// The kind of problem, for programs.
    #[serde(skip_serializing_if = "ProblemKind::is_other")]
    pub kind: ProblemKind,
    /// The machine; empty if the problem belongs to none.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The unit, file or directory that has the problem.
    pub subject: String,
    /// The problem, with the next step.
    pub text: String,
}

/// The body of every error response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure.
    pub error: ErrorDetail,
}

/// The content of an [`ErrorBody`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// The HTTP status.
    pub code: u16,
    /// The error text.
    pub message: String,
}

/// One operation of `PATCH machines`, a JSON Patch on `/ID/metadata/KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOp {
    /// `add`, `replace` or `remove`.
    pub op: String,
    /// `/ID/metadata/KEY`.
    pub path: String,
    /// The new value: `{"value": "x"}` as fleet 1.0 accepted it, or a bare string as it documented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<MetadataValue>,
}

/// A metadata value in either spelling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MetadataValue {
    /// The form `{"value": "x"}`.
    Object {
        /// The value.
        value: String,
    },
    /// The form `"x"`.
    Bare(String),
}

impl MetadataValue {
    /// Returns the value itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Object { value } | Self::Bare(value) => value,
        }
    }
}
