//! Rollouts on the wire: the state of every global unit, and of one unit on every machine.

use serde::{Deserialize, Serialize};

use crate::unit::Content;

/// The answer to `GET rollouts` (not in fleet 1.0): every global unit, at one registry revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutList {
    /// The registry revision at which everything here was read.
    pub registry_revision: u64,
    /// The rollouts, ordered by unit.
    pub rollouts: Vec<RolloutRow>,
}

/// One unit, with counts of its machines.
///
/// The counts cover live machines where the unit belongs, in the revision that machines move to.
/// Only `deferred` also counts other machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutRow {
    /// The unit.
    pub unit: String,
    /// The target state: `inactive`, `loaded`, `launched`.
    pub desired_state: String,
    /// The stable revision's number.
    pub revision: u64,
    /// When the stable revision was submitted, in milliseconds since 1970.
    pub at: u64,
    /// The candidate's number. `None` without a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<u64>,
    /// `stable` without a rollout, else `rolling`, `paused` or `rolling-back`.
    pub phase: String,
    /// The reason for the phase, or the outcome of the last rollout; empty if there is neither.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The number of machines where the unit belongs.
    pub desired: usize,
    /// The number of those that have the unit, in any revision.
    pub current: usize,
    /// The number of those that have the revision that machines move to.
    pub up_to_date: usize,
    /// The number of those where the unit is ready.
    pub ready: usize,
    /// The number of those where it has been ready for `MinReadySec`.
    pub available: usize,
    /// The number of those where it cannot become ready by itself.
    pub failed: usize,
    /// The number of machines that take it later: offline, cordoned and drained machines, and
    /// machines that wait with an older revision without a rollout.
    pub deferred: usize,
    /// The `MachineMetadata=`, such as `az=1,az=2,disk=ssd`; empty if it runs on every machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The conditions `Available`, `Progressing`, `Degraded` and `Held`, in this order.
    pub conditions: Vec<Condition>,
}

/// One condition of a unit, true or false.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// The kind of condition, such as `Available`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// The reason as one `CamelCase` word, for programs.
    pub reason: String,
    /// The reason as a sentence, for people.
    pub message: String,
    /// When the status last changed, in milliseconds since 1970. `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// The answer to `GET rollouts/NAME` (not in fleet 1.0): one unit on every machine.
///
/// With `?after=REVISION` the request waits up to 30 seconds for a change of units or machines
/// after that registry revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// The registry revision at which everything here was read.
    pub registry_revision: u64,
    /// The unit's row of `GET rollouts`.
    #[serde(flatten)]
    pub row: RolloutRow,
    /// When the phase began, in milliseconds since 1970. `None` without a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The outcome of the last rollout. `None` before the first rollout has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRollout>,
    /// The policy of the rollout.
    pub policy: RolloutPolicy,
    /// The number of machines that are done, and when it last grew. `None` without a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RolloutProgress>,
    /// The reason why the rollout waits. `None` if nothing is left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// The machines where it belongs or that have it, live and offline, ordered by id.
    pub machines: Vec<RolloutMachine>,
}

/// The outcome of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastRollout {
    /// The candidate's number.
    pub revision: u64,
    /// `done` or `rolled-back`.
    pub ended: String,
    /// The reason.
    pub reason: String,
    /// When it ended, in milliseconds since 1970.
    pub at: u64,
}

/// The policy of a rollout: the candidate's, or the stable revision's if there is no candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutPolicy {
    /// `rolling`, `all` or `manual`.
    pub strategy: String,
    /// The value in the file, such as `10%`.
    pub max_unavailable: String,
    /// The number of machines that may change at once now.
    pub budget: usize,
    /// The time that a unit must stay ready, such as `1s`.
    pub min_ready_sec: String,
    /// The longest time without progress, such as `10m`.
    pub progress_deadline_sec: String,
    /// `rollback` or `pause`.
    pub on_failure: String,
}

/// The progress of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutProgress {
    /// The number of machines that are done.
    pub done: usize,
    /// When that number last grew, in milliseconds since 1970.
    pub at: u64,
}

/// One machine of a [`RolloutStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutMachine {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// The address that listings show.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
    /// Whether the machine is live. Except `wanted` and `scheduling`, the fields below cover live
    /// machines only.
    pub live: bool,
    /// When it went offline, in milliseconds since 1970. `None` if no leader noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_since: Option<u64>,
    /// `cordoned` or `drained`. `None` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<String>,
    /// The revision that the machine should get. `None` if the unit does not belong there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u64>,
    /// The reason why the unit belongs there, or does not.
    pub reason: String,
    /// The revision that the machine has. `None` if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The revision granted to the machine's present session. `None` without a grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<u64>,
    /// Whether the unit is ready there.
    pub ready: bool,
    /// Whether it has been ready for `MinReadySec`.
    pub available: bool,
    /// Whether a condition in its file kept it from starting. Such a unit is ready although it does
    /// not run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// The reason why it cannot become ready by itself. `None` if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether the machine takes it later; see [`RolloutRow::deferred`].
    pub deferred: bool,
}

/// The answer to `GET rollouts/NAME/history` (not in fleet 1.0): every known revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionList {
    /// The unit.
    pub unit: String,
    /// The revisions, oldest first.
    pub revisions: Vec<RevisionRow>,
}

/// One revision of a [`RevisionList`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionRow {
    /// The revision's number.
    pub number: u64,
    /// When it was submitted, in milliseconds since 1970.
    pub at: u64,
    /// The revision's compatible hash.
    pub hash: String,
    /// `stable`, `candidate`, `superseded` (another revision replaced it) or `rolled-back`.
    pub state: String,
    /// The reason why it never became stable, or the reason for the candidate's phase.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The answer to `GET rollouts/NAME/history/N` (not in fleet 1.0): one revision with its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionContent {
    /// The revision's row in the list.
    #[serde(flatten)]
    pub row: RevisionRow,
    /// The file's bytes in base64.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "super::content_to_base64",
        deserialize_with = "super::content_from_base64"
    )]
    pub content: Option<Content>,
}

/// The body of `POST rollouts/NAME` (not in fleet 1.0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderBody {
    /// The action.
    pub action: OrderAction,
    /// The revision to return to, for `undo` only. `None` means the previous stable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// An operator's order about the rollout of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderAction {
    /// Stops the rollout where it is.
    Pause,
    /// Continues the rollout.
    Resume,
    /// Returns to an earlier revision.
    Undo,
    /// Restarts the unit on every machine, within the budget.
    Restart,
}

/// The body of `POST machines/ID` (not in fleet 1.0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulingBody {
    /// The limits on starting units there.
    pub scheduling: crate::machine::Scheduling,
}
