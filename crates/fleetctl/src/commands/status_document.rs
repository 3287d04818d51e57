//! The documents of `status --output json` for a unit and for the cluster.

use fleet_core::api::{
    ClusterStatus, OfflineMachine, Problem, UnitCandidate, UnitOnMachine, UnitStatus,
};
use fleet_core::unit::TargetState;
use serde::Serialize;

use super::rows::{Details, LastRow};
use crate::describe;

/// A unit on every machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnitStatusRow<'a> {
    name: &'a str,
    description: &'a str,
    target_state: &'a str,
    global: bool,
    revision: u64,
    hash: &'a str,
    candidate: Option<CandidateRow<'a>>,
    /// The outcome of the last rollout. `None` before the first has ended.
    last: Option<LastRow>,
    /// Whether it is active on every machine where it belongs, which the exit code shows too.
    active: bool,
    machines: Vec<OnMachine<'a>>,
}

/// The revision being rolled out.
#[derive(Debug, Serialize)]
struct CandidateRow<'a> {
    revision: u64,
    hash: &'a str,
    phase: &'a str,
    reason: &'a str,
}

impl<'a> From<&'a UnitCandidate> for CandidateRow<'a> {
    fn from(candidate: &'a UnitCandidate) -> Self {
        Self {
            revision: candidate.revision,
            hash: &candidate.hash,
            phase: &candidate.phase,
            reason: &candidate.reason,
        }
    }
}

/// A live machine, whether the unit belongs there or not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OnMachine<'a> {
    machine: &'a str,
    ip: &'a str,
    placed: bool,
    reason: &'a str,
    problem: Option<&'a str>,
    /// The state. `None` if fleet has put no file there.
    state: Option<State<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    load: &'a str,
    active: &'a str,
    sub: &'a str,
    hash: &'a str,
    #[serde(flatten)]
    details: Details,
}

impl<'a> From<&'a UnitStatus> for UnitStatusRow<'a> {
    fn from(status: &'a UnitStatus) -> Self {
        Self {
            name: &status.name,
            description: &status.description,
            target_state: &status.desired_state,
            global: status.global,
            revision: status.revision,
            hash: &status.hash,
            candidate: status.candidate.as_ref().map(CandidateRow::from),
            last: status.last.as_ref().map(LastRow::from),
            active: is_active(status),
            machines: status.machines.iter().map(OnMachine::from).collect(),
        }
    }
}

impl<'a> From<&'a UnitOnMachine> for OnMachine<'a> {
    fn from(unit: &'a UnitOnMachine) -> Self {
        Self {
            machine: &unit.machine_id,
            ip: &unit.primary_ip,
            placed: unit.placed,
            reason: &unit.reason,
            problem: unit.problem.as_deref(),
            state: unit.report.as_ref().map(|report| State {
                load: &report.load,
                active: &report.active,
                sub: &report.sub,
                hash: &report.hash,
                details: Details::from(report),
            }),
        }
    }
}

/// Returns whether the unit runs, or did its work, on every machine where it belongs, and on at
/// least one.
pub(super) fn is_active(status: &UnitStatus) -> bool {
    let active = |unit: &UnitOnMachine| {
        unit.report.as_ref().is_some_and(|report| {
            // A oneshot that did its work is inactive. One that is only loaded is inactive too, but
            // not done.
            let done = report.ready && status.desired_state == TargetState::Launched.as_str();
            done || ["active", "reloading"].contains(&report.active.as_str())
        })
    };
    let mut placed = status.machines.iter().filter(|unit| unit.placed).peekable();
    placed.peek().is_some() && placed.all(active)
}

/// The summary of the cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterStatusRow<'a> {
    registry_revision: u64,
    cluster: &'a str,
    /// The leader's machine id. `None` if no engine leads.
    leader: Option<&'a str>,
    machines: usize,
    offline: Vec<OfflineRow<'a>>,
    units: usize,
    problems: Vec<ProblemRow<'a>>,
}

/// A machine that was live in recent days and is offline now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfflineRow<'a> {
    machine: &'a str,
    ip: &'a str,
    /// When it went offline, in RFC 3339. `None` until a leader has noticed.
    since: Option<String>,
}

/// A problem of a machine. Without a machine, it is about a unit or the registry.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemRow<'a> {
    kind: &'a str,
    machine: Option<&'a str>,
    subject: &'a str,
    text: &'a str,
}

impl<'a> From<&'a ClusterStatus> for ClusterStatusRow<'a> {
    fn from(status: &'a ClusterStatus) -> Self {
        let problem = |problem: &'a Problem| ProblemRow {
            kind: problem.kind.as_str(),
            machine: present(&problem.machine_id),
            subject: &problem.subject,
            text: &problem.text,
        };
        let offline = |machine: &'a OfflineMachine| OfflineRow {
            machine: &machine.machine_id,
            ip: &machine.primary_ip,
            since: machine.since.map(describe::timestamp),
        };
        Self {
            registry_revision: status.registry_revision,
            cluster: &status.cluster,
            leader: present(&status.leader),
            machines: status.machines,
            offline: status.offline.iter().map(offline).collect(),
            units: status.units,
            problems: status.problems.iter().map(problem).collect(),
        }
    }
}

fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
