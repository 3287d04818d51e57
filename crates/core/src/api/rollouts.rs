//! Rollouts on the wire: the state of every global unit, and of one unit on every machine.

use serde::{Deserialize, Serialize};

use crate::unit::Content;

/// `GET rollouts` (ours): every global unit, read at one registry revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutList {
    /// The registry revision that all of this was read at.
    pub registry_revision: u64,
    /// Ordered by unit.
    pub rollouts: Vec<RolloutRow>,
}

/// One unit, counted over the machines.
///
/// The counts are of live machines where the revision belongs that machines are on the way to; only `deferred` is
/// also of others.
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
    /// The candidate's number; absent without a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<u64>,
    /// `stable` without a rollout, else `rolling`, `paused` or `rolling-back`.
    pub phase: String,
    /// Why it is in that phase, or how the last rollout ended; empty where there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Machines where it belongs.
    pub desired: usize,
    /// Those of them that have it, in any revision.
    pub current: usize,
    /// Those that have the revision that machines are on the way to.
    pub up_to_date: usize,
    /// Those where it does what it should.
    pub ready: usize,
    /// Those where it has done so for `MinReadySec`.
    pub available: usize,
    /// Those where it will not become ready by itself.
    pub failed: usize,
    /// Machines that get it later: offline, cordoned or drained ones, and those that wait with an
    /// older revision without a rollout.
    pub deferred: usize,
    /// Its `MachineMetadata=`, such as `az=1,az=2,disk=ssd`; empty if it runs on every machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// `Available`, `Progressing`, `Degraded`, `Held`, in this order.
    pub conditions: Vec<Condition>,
}

/// One thing that holds of a unit, or does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Such as `Available`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One word in `CamelCase`, for programs.
    pub reason: String,
    /// A sentence, for people.
    pub message: String,
    /// Since when, in milliseconds since 1970, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// `GET rollouts/NAME` (ours): one unit on every machine.
///
/// With `?after=REVISION` the answer waits, up to 30 seconds, until something about units or machines has changed
/// since that registry revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// The registry revision that all of this was read at.
    pub registry_revision: u64,
    /// The row of `GET rollouts`.
    #[serde(flatten)]
    pub row: RolloutRow,
    /// Since when it is in its phase, in milliseconds since 1970; absent without a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// How the last rollout ended; absent before the first one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRollout>,
    /// How it is rolled out.
    pub policy: RolloutPolicy,
    /// How many machines were done when that last became more, and when; absent without a rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RolloutProgress>,
    /// The reason why the rollout waits; `None` if nothing is left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// Every machine where it belongs, or that has it: live and offline, ordered by id.
    pub machines: Vec<RolloutMachine>,
}

/// How a rollout ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastRollout {
    /// The candidate's number.
    pub revision: u64,
    /// `done` or `rolled-back`.
    pub ended: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// The policy that a rollout follows: of the candidate, or of the stable revision if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutPolicy {
    /// `rolling`, `all` or `manual`.
    pub strategy: String,
    /// As the file has it, such as `10%`.
    pub max_unavailable: String,
    /// How many machines that makes now.
    pub budget: usize,
    /// Such as `1s`.
    pub min_ready_sec: String,
    /// Such as `10m`.
    pub progress_deadline_sec: String,
    /// `rollback` or `pause`.
    pub on_failure: String,
}

/// How far a rollout has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutProgress {
    /// How many machines were done.
    pub done: usize,
    /// When that last became more, in milliseconds since 1970.
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
    /// Whether it is here now. All that follows is of live machines only, but for `wanted` and `scheduling`.
    pub live: bool,
    /// Since when it is not, in milliseconds since 1970, as far as a leader noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_since: Option<u64>,
    /// `cordoned` or `drained`; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<String>,
    /// The revision that it should come to have; absent where the unit does not belong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u64>,
    /// Why it belongs there, or does not.
    pub reason: String,
    /// The revision that it has; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The revision that it may change to, or has changed to, by a grant to its present session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<u64>,
    /// Whether it does what it should there.
    pub ready: bool,
    /// Whether it has done so for `MinReadySec`.
    pub available: bool,
    /// Whether a condition in its file kept it from starting, so that it is ready though it does not run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Why it will not become ready by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether it comes to this machine only later; see [`RolloutRow::deferred`].
    pub deferred: bool,
}

/// `GET rollouts/NAME/history` (ours): every revision that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionList {
    /// The unit.
    pub unit: String,
    /// Oldest first.
    pub revisions: Vec<RevisionRow>,
}

/// One revision of a [`RevisionList`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionRow {
    /// Its number.
    pub number: u64,
    /// When it was submitted, in milliseconds since 1970.
    pub at: u64,
    /// Its compatible hash.
    pub hash: String,
    /// `stable`, `candidate`, `superseded` (another took its place) or `rolled-back`.
    pub state: String,
    /// Why it never was stable, or why the candidate is where it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// `GET rollouts/NAME/history/N` (ours): one revision with its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionContent {
    /// The row of the list.
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

/// The body of `POST rollouts/NAME` (ours).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderBody {
    /// The action.
    pub action: OrderAction,
    /// To which revision; with `undo` only. None means the stable one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// An order about the rollout of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderAction {
    /// Nothing moves any more.
    Pause,
    /// It moves again.
    Resume,
    /// Back to what was before.
    Undo,
    /// Every machine restarts the unit, within the budget.
    Restart,
}

/// The body of `POST machines/ID` (ours).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulingBody {
    /// The limits on starting units there.
    pub scheduling: crate::machine::Scheduling,
}
