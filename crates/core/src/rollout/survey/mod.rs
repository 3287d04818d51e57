//! The state of a unit across all machines, with the counts of a Kubernetes DaemonSet.

use std::time::Duration;

use super::{OnMachine, Presence, Situation, Unknown, step};
use crate::api::{
    Condition, LastRollout, RolloutMachine, RolloutPolicy, RolloutProgress, RolloutRow,
    RolloutStatus,
};
use crate::machine::{MachineId, Scheduling};
use crate::place::{Reason, Verdict};
use crate::record::{Grant, Outcome, Progress, UnitRecord, UnitReport};
use crate::rollout::Phase;
use crate::unit::{FleetOptions, Parsed, TargetState, service_type};

/// A unit on all machines.
#[derive(Clone, Debug)]
pub struct Survey<'a> {
    /// The unit.
    pub record: &'a UnitRecord,
    /// The store revision that made it.
    pub created: u64,
    /// The revision that machines are on the way to (`UnitRecord::heading`).
    pub heading: &'a Parsed,
    /// The newest revision, whose policy is followed.
    pub newest: &'a Parsed,
    /// How far its rollout has come.
    pub progress: Option<&'a Progress>,
    /// Every machine, live and offline, ordered by id.
    pub machines: Vec<Surveyed<'a>>,
    /// The time, in milliseconds since 1970.
    pub now: u64,
}

/// A machine, as far as it concerns the unit.
#[derive(Clone, Debug)]
pub struct Surveyed<'a> {
    /// Its id.
    pub id: &'a MachineId,
    /// The address that listings show.
    pub primary_ip: &'a str,
    /// Whether it is here.
    pub presence: Presence,
    /// The limits on starting units there.
    pub scheduling: Scheduling,
    /// Whether the revision that machines are on the way to belongs there, by its metadata: the
    /// last known, where it is offline.
    pub verdict: Verdict,
    /// Its report about the unit; `None` while it has put no file in place.
    pub report: Option<&'a UnitReport>,
    /// The problem that it reports with the unit, such as a name that is taken.
    pub problem: Option<&'a str>,
    /// The reason why its state is unknown.
    pub unknown: Option<Unknown<'a>>,
    /// Why it does not follow the registry; none if it does.
    pub held: Option<&'a str>,
    /// Its grant, for whichever session or unit, and the store revision that wrote it.
    pub grant: Option<(&'a Grant, u64)>,
}

impl Surveyed<'_> {
    /// Whether the unit belongs there by metadata, whatever may start there.
    fn matches(&self) -> bool {
        self.verdict == Verdict::Run
    }

    fn is_live(&self) -> bool {
        matches!(self.presence, Presence::Live(_))
    }

    /// Returns whether the machine should have the unit now.
    pub fn is_desired(&self) -> bool {
        // One of which nobody knows how it stands may have it.
        let has = self.report.is_some() || self.unknown.is_some();
        self.is_live()
            && crate::place::restrict(self.verdict.clone(), self.scheduling, has) == Verdict::Run
    }

    /// The revision that a grant to its present session, for this unit, names.
    pub fn granted(&self, created: u64) -> Option<u64> {
        let Presence::Live(session) = self.presence else {
            return None;
        };
        self.grant
            .map(|(grant, _)| grant)
            .filter(|grant| grant.unit == created && grant.session == session)
            .map(|grant| grant.revision)
    }

    /// Returns whether it runs the unit although that does not belong there any more, and waits
    /// for its turn to stop it.
    fn is_leaving(&self) -> bool {
        let says_so = self.report.is_some_and(|report| report.leaving);
        says_so && self.is_live() && !self.matches()
    }

    fn failure(&self) -> Option<String> {
        let failed = self.report.and_then(|report| report.failed.clone());
        // One that has not told yet is not there, and nothing is wrong with it.
        let is_wrong = |why: &Unknown<'_>| matches!(why, Unknown::Unreadable(_));
        let unreadable = self.unknown.filter(is_wrong).map(|why| why.to_string());
        unreadable.or(self.problem.map(str::to_owned)).or(failed)
    }
}

impl Survey<'_> {
    /// The unit as a row of `GET rollouts`.
    pub fn row(&self) -> RolloutRow {
        let record = self.record;
        let heading = record.heading().number;
        let count = |holds: &dyn Fn(&Surveyed<'_>, &UnitReport) -> bool| {
            let reports = self
                .desired()
                .filter_map(|it| it.report.map(|report| (it, report)));
            reports.filter(|(it, report)| holds(it, report)).count()
        };
        let mut row = RolloutRow {
            unit: self.heading.name.to_string(),
            desired_state: record.target.to_string(),
            revision: record.stable.number,
            at: record.stable.at,
            candidate: record.candidate.as_ref().map(|it| it.revision.number),
            phase: phase(record).to_owned(),
            reason: reason(record),
            desired: self.desired().count(),
            current: count(&|_, _| true),
            up_to_date: count(&|_, report| report.revision == heading),
            ready: count(&|_, report| report.launched && report.ready),
            available: count(&|_, report| report.launched && report.available),
            failed: self
                .desired()
                .filter(|machine| machine.failure().is_some())
                .count(),
            deferred: self
                .machines
                .iter()
                .filter(|machine| self.defers(machine))
                .count(),
            metadata: metadata(&self.heading.options),
            conditions: Vec::new(),
        };
        row.conditions = vec![
            available(&row),
            self.progressing(&row),
            self.degraded(&row),
            self.held(),
        ];
        row
    }

    /// The unit on every machine. `registry_revision`: where all of it was read.
    pub fn status(&self, registry_revision: u64) -> RolloutStatus {
        let record = self.record;
        let candidate = record.candidate.as_ref();
        let progress = self
            .progress
            .filter(|it| it.unit == self.created && Some(it.revision) == candidate_number(record));
        RolloutStatus {
            registry_revision,
            row: self.row(),
            since: candidate.map(|candidate| candidate.since),
            last: record.last.as_ref().map(LastRollout::from),
            policy: self.policy(),
            progress: progress.map(|it| RolloutProgress {
                done: it.done,
                at: it.at,
            }),
            waits: self.waits(),
            machines: self
                .machines
                .iter()
                .filter(|machine| machine.matches() || machine.report.is_some())
                .map(|machine| self.machine(machine))
                .collect(),
        }
    }

    /// Returns the reason why the leader waits, by its own decision.
    pub fn waits(&self) -> Option<String> {
        let machines = self
            .machines
            .iter()
            .filter(|machine| match machine.presence {
                Presence::Live(_) => machine.is_desired() || machine.is_leaving(),
                Presence::Offline(_) | Presence::Awaited(_) => {
                    machine.matches() && machine.scheduling != Scheduling::Drained
                }
            });
        let machines = machines.map(|machine| OnMachine {
            id: machine.id,
            presence: machine.presence,
            cordoned: machine.scheduling == Scheduling::Cordoned,
            grant: machine.grant,
            report: machine.report,
            problem: machine.problem,
            unknown: machine.unknown,
            leaves: match &machine.verdict {
                Verdict::Not(reason) => Some(reason),
                Verdict::Run => None,
            },
        });
        step(&Situation {
            record: self.record,
            created: self.created,
            policy: self.newest.options.policy,
            progress: self.progress,
            min_ready: self.min_ready(),
            machines: machines.collect(),
            now: self.now,
            // Who only looks lets no time run out.
            since: self.now,
        })
        .waits
    }

    fn desired(&self) -> impl Iterator<Item = &Surveyed<'_>> {
        self.machines.iter().filter(|machine| machine.is_desired())
    }

    fn defers(&self, machine: &Surveyed<'_>) -> bool {
        if machine.is_leaving() {
            return true;
        }
        if !machine.matches() || self.record.target == TargetState::Inactive {
            return false;
        }
        let heading = self.record.heading().number;
        let outdated = machine.report.is_none_or(|it| it.revision != heading);
        let waiting = machine.report.is_some_and(|report| report.deferred);
        match machine.scheduling {
            _ if !machine.is_live() => true,
            Scheduling::Drained => true,
            Scheduling::Cordoned => outdated,
            Scheduling::Normal => waiting && self.record.candidate.is_none(),
        }
    }

    fn machine(&self, machine: &Surveyed<'_>) -> RolloutMachine {
        let report = machine.report;
        let offline_since = machine.presence.offline_since();
        let scheduling = machine.scheduling;
        RolloutMachine {
            machine_id: machine.id.to_string(),
            primary_ip: machine.primary_ip.to_owned(),
            live: machine.is_live(),
            offline_since,
            scheduling: (!scheduling.is_normal()).then(|| scheduling.as_str().to_owned()),
            wanted: machine
                .matches()
                .then(|| self.record.heading().number)
                .filter(|_| scheduling != Scheduling::Drained),
            reason: match scheduling {
                Scheduling::Drained if machine.matches() => Reason::Drained.to_string(),
                _ if machine.is_leaving() => {
                    format!("{}; it stops there in its turn", machine.verdict)
                }
                _ => machine.verdict.to_string(),
            },
            revision: report.map(|report| report.revision),
            granted: machine.granted(self.created),
            ready: report.is_some_and(|report| report.launched && report.ready),
            available: report.is_some_and(|report| report.launched && report.available),
            skipped: report.is_some_and(|report| report.skipped),
            failed: machine.failure(),
            deferred: self.defers(machine),
        }
    }

    fn policy(&self) -> RolloutPolicy {
        let policy = self.newest.options.policy;
        RolloutPolicy {
            strategy: policy.strategy.as_str().to_owned(),
            max_unavailable: policy.max_unavailable.to_string(),
            budget: self.budget(self.desired().count()),
            min_ready_sec: humantime::format_duration(self.min_ready()).to_string(),
            progress_deadline_sec: humantime::format_duration(policy.progress_deadline).to_string(),
            on_failure: policy.on_failure.as_str().to_owned(),
        }
    }

    fn min_ready(&self) -> Duration {
        let policy = self.newest.options.policy;
        policy.min_ready(self.newest.name.kind(), service_type(&self.newest.file))
    }

    fn budget(&self, desired: usize) -> usize {
        self.newest.options.policy.budget(desired)
    }

    fn progressing(&self, row: &RolloutRow) -> Condition {
        let Some(candidate) = &self.record.candidate else {
            let message = format!("every machine is to run revision {}", row.revision);
            return condition("Progressing", false, "Stable", message, None);
        };
        let (number, stable) = (candidate.revision.number, row.revision);
        let done = format!("{} of {} machines have it", row.up_to_date, row.desired);
        let (holds, reason, message) = match candidate.phase {
            Phase::Rolling => (
                true,
                "Rolling",
                format!("revision {number} takes the place of {stable}: {done}"),
            ),
            Phase::Paused => (
                false,
                "Paused",
                format!("revision {number} goes no further: {done}"),
            ),
            Phase::RollingBack => (
                true,
                "RollingBack",
                format!("machines go back from revision {number} to {stable}: {done}"),
            ),
        };
        condition("Progressing", holds, reason, message, Some(candidate.since))
    }

    fn degraded(&self, row: &RolloutRow) -> Condition {
        let launched = self.record.target == TargetState::Launched;
        let missing = row.desired - row.available;
        let budget = self.budget(row.desired);
        let first = self
            .desired()
            .find_map(|machine| Some((machine.id, machine.failure()?)));
        match first {
            Some((id, failure)) => {
                let message = format!(
                    "failed on {} of {} machines; on {}: {failure}",
                    row.failed,
                    row.desired,
                    id.short()
                );
                condition("Degraded", true, "Failed", message, None)
            }
            None if launched && missing > budget => {
                let message = format!(
                    "{missing} of {} machines are without it, and the budget is {budget}",
                    row.desired
                );
                condition("Degraded", true, "BelowBudget", message, None)
            }
            None => {
                let message = "nothing failed, and not more is missing than its budget allows";
                condition("Degraded", false, "WithinBudget", message, None)
            }
        }
    }

    fn held(&self) -> Condition {
        let paused = self.record.candidate.as_ref();
        let paused = paused.filter(|candidate| candidate.phase == Phase::Paused);
        let held = self
            .machines
            .iter()
            .find_map(|machine| Some((machine.id, machine.held?)));
        match (paused, held) {
            (Some(candidate), _) => {
                let message = candidate.reason.clone();
                condition("Held", true, "Paused", message, Some(candidate.since))
            }
            (None, Some((id, why))) => {
                let message = format!("{} keeps what it has: {why}", id.short());
                condition("Held", true, "RegistryNotTrusted", message, None)
            }
            (None, None) => {
                let message = "nothing is paused, and every live machine follows the registry";
                condition("Held", false, "NotHeld", message, None)
            }
        }
    }
}

fn available(row: &RolloutRow) -> Condition {
    let all = format!("{} of {} machines", row.available, row.desired);
    let (holds, reason, message) = if row.desired_state != TargetState::Launched.as_str() {
        let message = format!("its target state is {}", row.desired_state);
        (false, "NotLaunched", message)
    } else if row.desired == 0 {
        let message = "it belongs on no live machine".to_owned();
        (true, "NoMachine", message)
    } else if row.available < row.desired {
        (false, "SomeUnavailable", format!("available on {all}"))
    } else {
        (true, "AllAvailable", format!("available on {all}"))
    };
    condition("Available", holds, reason, message, None)
}

fn condition(
    kind: &str,
    holds: bool,
    reason: &str,
    message: impl Into<String>,
    since: Option<u64>,
) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        since,
    }
}

fn candidate_number(record: &UnitRecord) -> Option<u64> {
    record.candidate.as_ref().map(|it| it.revision.number)
}

fn phase(record: &UnitRecord) -> &'static str {
    record
        .candidate
        .as_ref()
        .map_or("stable", |candidate| candidate.phase.as_str())
}

fn reason(record: &UnitRecord) -> String {
    let ended = record.last.as_ref().map(|last| last.reason.clone());
    match &record.candidate {
        Some(candidate) => candidate.reason.clone(),
        None => ended.unwrap_or_default(),
    }
}

/// A unit's `MachineMetadata=` in one line.
fn metadata(options: &FleetOptions) -> String {
    let pairs = options.machine_metadata.iter().flat_map(|(key, values)| {
        let pair = move |value| format!("{key}={value}");
        values.iter().map(pair)
    });
    pairs.collect::<Vec<_>>().join(",")
}

impl From<&Outcome> for LastRollout {
    fn from(outcome: &Outcome) -> Self {
        Self {
            revision: outcome.revision,
            ended: outcome.ended.as_str().to_owned(),
            reason: outcome.reason.clone(),
            at: outcome.at,
        }
    }
}

#[cfg(test)]
mod tests;
