//! `explain`: why a unit runs or does not run on each machine.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet_core::api::Explanation;
use fleet_core::explain::{Asked, OnMachine, explain};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::place::Placeable;
use fleet_core::record::UnitReport;
use fleet_core::rollout::Survey;
use fleet_core::unit::{UnitFile, UnitName};

use super::error::{ApiError, Result};
use super::rollouts::{DETAILED, Places, survey};
use super::view::{View, ViewedUnit};
use super::{Api, Query, heavy};

pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<Explanation>> {
    let name = UnitName::parse(&name).map_err(|error| ApiError::bad(error.to_string()))?;
    let only = query
        .machine_id
        .map(|id| MachineId::parse(&id).map_err(|error| ApiError::bad(error.to_string())))
        .transpose()?;
    let history = keys::history_of(&name);
    let prefixes: Vec<&str> = DETAILED.into_iter().chain([&*history]).collect();
    let view = View::of_unit(&**api.registry.store(), &prefixes, &name).await?;
    if let Some(id) = &only
        && !view.all_machines().contains_key(id)
    {
        let text =
            format!("machine {id} is not known; fleetctl list-machines shows the known ones");
        return Err(ApiError::new(StatusCode::NOT_FOUND, text));
    }
    let answer = heavy(move || answer(&view, &name, only.as_ref()));
    Ok(Json(answer.await))
}

fn answer(view: &View, name: &UnitName, only: Option<&MachineId>) -> Explanation {
    let all: Vec<Placeable<'_>> = view.placeables().collect();
    let unit = view.units.get(name);
    let survey = unit.map(|unit| survey(view, &Places::of(view), name, unit));
    let waits = survey.as_ref().and_then(Survey::waits);
    let stable_process = unit.map(|unit| unit.record.stable.process(&unit.stable().file));
    let asked = Asked {
        name,
        unit: unit.and_then(|unit| {
            let placeable = all.iter().find(|placeable| placeable.name == name)?;
            Some((&unit.record, *placeable))
        }),
        all: &all,
        stable_process: stable_process.as_deref().unwrap_or(""),
        waits: waits.as_deref(),
    };
    let machines = view.all_machines().into_iter().enumerate();
    let machines = machines.filter(|(_, (id, _))| only.is_none_or(|only| only == *id));
    let explained = machines.map(|(at, (id, machine))| {
        // The survey has every machine too, in the same order.
        let surveyed = survey.as_ref().map(|survey| &survey.machines[at]);
        let report = surveyed.and_then(|surveyed| surveyed.report);
        let on_machine = OnMachine {
            id,
            primary_ip: &machine.primary_ip,
            presence: machine.presence,
            metadata: &machine.metadata,
            scheduling: machine.scheduling,
            report,
            process: unit
                .zip(report)
                .and_then(|(unit, report)| process(view, name, unit, report)),
            granted: surveyed
                .zip(unit)
                .and_then(|(it, unit)| it.granted(unit.created)),
            problem: surveyed.and_then(|surveyed| surveyed.problem),
            held: surveyed.and_then(|surveyed| surveyed.held),
        };
        explain(&asked, &on_machine)
    });
    Explanation {
        registry_revision: view.revision,
        unit: name.to_string(),
        machines: explained.collect(),
    }
}

/// Returns the part of the reported revision that a process depends on. `None` if that revision is
/// no longer known.
fn process(view: &View, name: &UnitName, unit: &ViewedUnit, report: &UnitReport) -> Option<String> {
    let record = &unit.record;
    let number = report.revision;
    let past = view.history.get(&(name.clone(), number));
    let revision = [&record.stable, record.newest()]
        .into_iter()
        .find(|revision| revision.number == number)
        .or(past.map(|past| &past.revision))?;
    Some(revision.process(&UnitFile::parse(revision.content.as_bytes())))
}
