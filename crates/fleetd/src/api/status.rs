//! `status`: a unit on every machine with the reasons, and an overview of the cluster. An addition
//! to fleet 1.0.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use fleet_core::api::{
    ClusterStatus, LastRollout, OfflineMachine, Problem, UnitCandidate, UnitOnMachine, UnitReport,
    UnitStatus,
};
use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata};
use fleet_core::place::{Verdict, restrict};
use fleet_core::problem::{self, ProblemKind};
use fleet_core::record::Listed;
use fleet_core::unit::UnitName;
use serde::Deserialize;

use super::error::{ApiError, Result};
use super::reports::{Report, every_report};
use super::view::{View, ViewedMachine, ViewedUnit};
use super::{Api, Query, heavy, long_poll};

pub(super) async fn cluster(State(api): State<Api>) -> Result<Json<ClusterStatus>> {
    let prefixes = [
        keys::CLUSTER,
        keys::ACCEPTANCE,
        keys::LEADER,
        keys::UNITS,
        keys::MACHINES,
        keys::METADATA,
        keys::KNOWN,
        // It is read for values that cannot be read. Machines report unreadable grants. The
        // listings of revisions and events report theirs.
        keys::ROLLOUTS,
    ];
    let view = View::read(&**api.registry.store(), &prefixes).await?;
    let offline = view.offline.iter().map(|(id, machine)| OfflineMachine {
        machine_id: id.to_string(),
        primary_ip: machine.primary_ip.clone(),
        since: machine.presence.offline_since(),
    });
    let offline = offline.collect();
    let of_units = unit_problems(&view);
    let mut problems = view.damaged;
    problems.extend(of_units);
    // Reports are most of the registry. They are read in parts, and only problems are kept.
    let told = |told: &mut Vec<Problem>, report: &Report| told.extend(problems_in(report));
    problems.extend(every_report(&api, view.revision, told).await?);
    Ok(Json(ClusterStatus {
        registry_revision: view.revision,
        cluster: view.cluster.unwrap_or_default(),
        leader: view.leader.map(String::from).unwrap_or_default(),
        machines: view.machines.len(),
        offline,
        units: view.units.len(),
        problems,
    }))
}

/// Returns the problems that the records of units show.
fn unit_problems(view: &View) -> Vec<Problem> {
    let mut machines: BTreeMap<&Metadata, usize> = BTreeMap::new();
    for machine in view.machines.values() {
        *machines.entry(&machine.metadata).or_default() += 1;
    }
    let places: Vec<_> = machines
        .into_iter()
        .map(|(metadata, machines)| (view.place(metadata), machines))
        .collect();
    let of_unit = |(name, unit): (&UnitName, &ViewedUnit)| {
        let verdicts = places.iter().filter_map(|(verdicts, machines)| {
            let verdict = verdicts.get(name)?;
            Some((verdict.clone(), *machines))
        });
        let problems = problem::of_record(&unit.record, verdicts);
        let subject = name.to_string();
        problems.into_iter().map(move |problem| Problem {
            kind: problem.kind(),
            machine_id: String::new(),
            subject: subject.clone(),
            text: problem.to_string(),
        })
    };
    view.units.iter().flat_map(of_unit).collect()
}

/// The report of a unit that may have failed.
#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    active: Cow<'a, str>,
    #[serde(borrow, default)]
    result: Cow<'a, str>,
    #[serde(default)]
    failed: Option<String>,
}

/// Returns the problems and failed units in a machine's report, or that the report cannot be read.
fn problems_in(report: &Report) -> Vec<Problem> {
    let machine = &report.machine;
    let problem = |kind, machine_id, subject, text| Problem {
        kind,
        machine_id,
        subject,
        text,
    };
    match report.decode::<Listed<'_, Outcome<'_>>>() {
        Ok(report) => {
            let own = report.problems;
            let failed: Vec<_> = report
                .units
                .into_iter()
                // Its own problem says more than that it failed.
                .filter(|(name, _)| !own.contains_key(&**name))
                .filter_map(|(name, unit)| {
                    let failed = unit.failed.as_deref();
                    let failed = problem::of_report(&unit.active, &unit.result, failed)?;
                    let text = failed.to_string();
                    Some(problem(
                        failed.kind(),
                        machine.to_string(),
                        name.into_owned(),
                        text,
                    ))
                })
                .collect();
            own.into_iter()
                .map(|(subject, text)| {
                    problem(ProblemKind::Other, machine.to_string(), subject, text)
                })
                .chain(failed)
                .collect()
        }
        Err(error) => vec![problem(
            ProblemKind::Other,
            String::new(),
            keys::report(machine),
            error.to_string(),
        )],
    }
}

pub(super) async fn unit(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<UnitStatus>> {
    let name = UnitName::parse(&name).map_err(|_| ApiError::no_unit())?;
    // Other units are among them because they may conflict with this one.
    let prefixes = [keys::UNITS, keys::MACHINES, keys::METADATA, keys::REPORTS];
    let store = api.registry.store();
    long_poll::wait(&**store, &prefixes, query.after).await?;
    let view = View::of_unit(&**store, &prefixes, &name).await?;
    let status = heavy(move || unit_status(&view, &name)).await;
    status.map(Json).ok_or_else(ApiError::no_unit)
}

fn unit_status(view: &View, name: &UnitName) -> Option<UnitStatus> {
    let unit = view.units.get(name)?;
    let candidate = unit.record.candidate.as_ref();
    let mut verdicts = BTreeMap::new();
    Some(UnitStatus {
        registry_revision: view.revision,
        name: name.to_string(),
        desired_state: unit.record.target.to_string(),
        global: unit.heading().options.global,
        description: unit.heading().file.description().to_owned(),
        revision: unit.record.stable.number,
        hash: unit.stable().hash.to_string(),
        candidate: candidate.map(|candidate| UnitCandidate {
            revision: candidate.revision.number,
            hash: unit.newest().hash.to_string(),
            phase: candidate.phase.as_str().to_owned(),
            reason: candidate.reason.clone(),
        }),
        last: unit.record.last.as_ref().map(LastRollout::from),
        machines: view
            .machines
            .iter()
            .map(|(id, machine)| {
                // Most machines share their metadata with many others.
                let verdict = verdicts
                    .entry(&machine.metadata)
                    .or_insert_with_key(|metadata| view.place(metadata).remove(name));
                on_machine(view, (name, unit), id, machine, verdict.clone())
            })
            .collect(),
    })
}

fn on_machine(
    view: &View,
    unit: (&UnitName, &ViewedUnit),
    id: &MachineId,
    machine: &ViewedMachine,
    verdict: Option<Verdict>,
) -> UnitOnMachine {
    let (name, unit) = unit;
    let reports = view.reports.get(id);
    let report = reports.and_then(|reports| reports.units.get(name));
    let scheduling = unit.heading().options.scheduling_on(machine.scheduling);
    let verdict = verdict.map(|verdict| restrict(verdict, scheduling, report.is_some()));
    let heading = unit.record.heading().number;
    UnitOnMachine {
        machine_id: id.to_string(),
        primary_ip: machine.primary_ip.clone(),
        placed: verdict == Some(Verdict::Run),
        deferred: !scheduling.is_normal()
            && report.is_some_and(|report| report.revision != heading),
        reason: verdict
            .map(|verdict| verdict.to_string())
            .unwrap_or_default(),
        report: report.cloned().map(UnitReport::from),
        problem: reports.and_then(|reports| problem_of(name, &reports.problems)),
    }
}

/// Returns the problem with a unit, listed under its name or under the path of its file in a units
/// directory.
fn problem_of(name: &UnitName, problems: &BTreeMap<String, String>) -> Option<String> {
    let file = format!("/{name}");
    let by_path = || {
        let found = problems
            .iter()
            .find(|(subject, _)| subject.ends_with(&file));
        found.map(|(subject, text)| format!("{subject}: {text}"))
    };
    problems.get(name.as_str()).cloned().or_else(by_path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use fleet_core::record::Owner;
    use fleet_core::unit::{Content, TargetState};
    use tokio::time::Instant;

    use super::long_poll::LONGEST_WAIT;
    use super::*;
    use crate::registry::Registry;
    use crate::store::Embedded;

    #[tokio::test(start_paused = true)]
    async fn wait_on_a_registry_that_went_back_is_answered_at_once() {
        let api = Api {
            registry: Registry::new(Arc::new(Embedded::in_memory())),
            page_limit: 100,
        };
        let name = UnitName::parse("a.service").expect("valid");
        let content = Content::from("[Service]\nExecStart=/x\n");
        let target = Some(TargetState::Inactive);
        let submitted = api.registry.submit(&name, content, Owner::Api, target);
        submitted.await.expect("taken");
        let ask = async |after| {
            let query = Query {
                after: Some(after),
                ..Query::default()
            };
            let began = Instant::now();
            let path = Path(name.to_string());
            let answer = unit(State(api.clone()), path, query).await;
            (
                answer.expect("an answer").0.registry_revision,
                began.elapsed(),
            )
        };
        let (now, _) = ask(0).await;
        assert_eq!(ask(now + 1000).await, (now, Duration::ZERO));
        assert_eq!(ask(u64::MAX).await, (now, Duration::ZERO));
        assert_eq!(ask(now).await, (now, LONGEST_WAIT));
    }
}
