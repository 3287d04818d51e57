//! The wire types of API v1: the shapes of fleet 1.0, and additions.

mod events;
mod explain;
mod plan;
mod registry;
mod rollouts;

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
use crate::problem::ProblemKind;
use crate::record::UnitReport;
use crate::unit::{Content, UnitOption};

/// The path of API v1.
pub const V1: &str = "/fleet/v1";

/// A unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Unit {
    /// The file's bytes in base64. Ours only: sent with `?content=true`, and taken before `options`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "content_to_base64",
        deserialize_with = "content_from_base64"
    )]
    pub content: Option<Content>,
    /// The state that machines report; the API never accepts it.
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
    /// The machine it is scheduled to; never set for a global unit.
    #[serde(
        rename = "machineID",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub machine_id: String,
    /// Its name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub name: String,
    /// Its file, option by option.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub options: Vec<UnitOption>,
    /// The number of its newest revision; 0 if unknown. Ours only: sent with `?content=true`.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Takes `null` for a member that is not there, as Go does, where fleet 1.0's clients may say so.
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
    /// Asks for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// Ordered by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    /// Its machine id.
    pub id: String,
    /// Its metadata as units see it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The address that listings show.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    /// `cordoned` or `drained` (ours); empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scheduling: String,
    /// The version of fleetd there. Ours only: sent with `?details=true`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// A page of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePage {
    /// Ordered by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// Asks for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The report of one machine's systemd about one unit.
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
    /// Such as `active`.
    pub systemd_active_state: String,
    /// Such as `loaded`.
    pub systemd_load_state: String,
    /// Such as `running`.
    pub systemd_sub_state: String,
    /// All that the machine says of it. Ours only: sent with `?details=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<UnitReport>,
}

/// A page of states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatePage {
    /// Asks for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// The addresses of live machines that are in it. Ours only: sent with `?stream=true`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, String>,
    /// Ordered by unit, then machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<UnitState>,
}

/// `GET status/NAME` (ours): a unit on every machine, read at one registry revision.
///
/// With `?after=REVISION` the answer waits, up to 30 seconds, until something about the unit or the machines
/// has changed since that registry revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitStatus {
    /// The registry revision that all of this was read at.
    pub registry_revision: u64,
    /// The unit.
    pub name: String,
    /// The target state.
    pub desired_state: String,
    /// Whether it is a global unit.
    pub global: bool,
    /// The `Description=` of its file; empty without one.
    pub description: String,
    /// The stable revision's number.
    pub revision: u64,
    /// The stable revision's compatible hash.
    pub hash: String,
    /// The revision being rolled out, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<UnitCandidate>,
    /// How the last rollout ended; absent before the first one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRollout>,
    /// Every live machine, ordered by id.
    pub machines: Vec<UnitOnMachine>,
}

impl UnitStatus {
    /// The number of the newest revision: the candidate's if there is one.
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
    /// Its number.
    pub revision: u64,
    /// Its compatible hash.
    pub hash: String,
    /// `rolling`, `paused` or `rolling-back`.
    pub phase: String,
    /// Why it is in that phase; empty while it rolls for no other reason than that it was submitted.
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
    /// Whether the unit belongs there.
    pub placed: bool,
    /// Whether it takes the newest revision only after `uncordon`: no client should wait for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// Why it does, or does not.
    pub reason: String,
    /// The report of that machine's systemd; `None` if fleet has put no file there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<UnitReport>,
    /// The problem with the unit on that machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `GET status` (ours): the cluster at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// The registry revision that all of this was read at.
    pub registry_revision: u64,
    /// The registry's random id; empty before an engine has made it.
    pub cluster: String,
    /// The machine whose engine leads; empty if none does.
    pub leader: String,
    /// How many machines are live.
    pub machines: usize,
    /// Those that were here in the last days and are not now, ordered by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<OfflineMachine>,
    /// How many units there are.
    pub units: usize,
    /// The problems, by machine and subject.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// A machine that is switched off, cut off, or without a fleetd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OfflineMachine {
    /// Its id.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The address it had.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    /// Since when, in milliseconds since 1970; none while no leader has noticed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// Something wrong: on a machine, or without one with a unit or in the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// The kind of problem, for programs.
    #[serde(skip_serializing_if = "ProblemKind::is_other")]
    pub kind: ProblemKind,
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// A unit, a file, the state directory.
    pub subject: String,
    /// The problem, and what to do.
    pub text: String,
}

/// The body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure.
    pub error: ErrorDetail,
}

/// The inside of an [`ErrorBody`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// The HTTP status.
    pub code: u16,
    /// A sentence.
    pub message: String,
}

/// One operation of `PATCH machines`, a JSON Patch on `/ID/metadata/KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOp {
    /// `add`, `replace` or `remove`.
    pub op: String,
    /// `/ID/metadata/KEY`.
    pub path: String,
    /// The new value: `{"value": "x"}` as fleet 1.0 took it, or the bare string of its document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<MetadataValue>,
}

/// Both spellings of a metadata value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MetadataValue {
    /// `{"value": "x"}`
    Object {
        /// The value.
        value: String,
    },
    /// `"x"`
    Bare(String),
}

impl MetadataValue {
    /// The value itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Object { value } | Self::Bare(value) => value,
        }
    }
}
