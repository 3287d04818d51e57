//! `POST plan`: previews submitting and launching units. It changes nothing.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use fleet_core::api::{Plan, PlanBody, PlannedUnit, Unit};
use fleet_core::keys;
use fleet_core::machine::Metadata;
use fleet_core::place::{Placeable, Reason, Verdict, place};
use fleet_core::preview::{Existing, OnMachine, Proposed, preview, rolled_back};
use fleet_core::submission::may_become;
use fleet_core::unit::{Content, Parsed, TargetState, UnitName};

use super::error;
use super::units::content_of;
use super::view::View;
use super::{Api, body, heavy};

/// The keys that a plan depends on.
const READ: [&str; 5] = [
    keys::UNITS,
    keys::MACHINES,
    keys::METADATA,
    keys::REPORTS,
    keys::KNOWN,
];

pub(super) async fn post(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> error::Result<Json<Plan>> {
    body::require_json(&headers)?;
    let asked: PlanBody = body::decode(&bytes)?;
    let named = asked.units.iter().map(|unit| UnitName::parse(&unit.name));
    let histories: Vec<String> = named
        .flatten()
        .map(|name| keys::history_of(&name))
        .collect();
    let prefixes = READ.into_iter().chain(histories.iter().map(String::as_str));
    let prefixes: Vec<&str> = prefixes.collect();
    let view = View::read(&**api.registry.store(), &prefixes).await?;
    Ok(Json(heavy(move || plan(&view, &asked)).await))
}

fn plan(view: &View, asked: &PlanBody) -> Plan {
    let read: Vec<_> = asked.units.iter().map(|unit| (unit, read(unit))).collect();
    let accepted: Vec<&(Parsed, Content)> = read
        .iter()
        .filter_map(|(_, read)| read.as_ref().ok())
        .collect();
    let places = places(view, &accepted);
    let units = read.iter().map(|(unit, read)| match read {
        Ok(proposed) => planned(view, &places, proposed),
        Err(error) => PlannedUnit {
            name: unit.name.clone(),
            error: Some(error.clone()),
            ..PlannedUnit::default()
        },
    });
    Plan {
        registry_revision: view.revision,
        units: units.collect(),
    }
}

/// Reads a unit that may be submitted and launched. The error says why it may not.
fn read(unit: &Unit) -> Result<(Parsed, Content), String> {
    let name = UnitName::parse(&unit.name).map_err(|error| error.to_string())?;
    let content = content_of(unit).map_err(|error| error.message)?;
    let content = content.ok_or("it has neither content nor options")?;
    let parsed = Parsed::parse(name, &content);
    parsed.validate().map_err(|error| error.to_string())?;
    may_become(&parsed.name, parsed.options.global, TargetState::Launched)
        .map_err(|error| error.to_string())?;
    Ok((parsed, content))
}

type Places<'a> = BTreeMap<&'a Metadata, BTreeMap<UnitName, Verdict>>;

/// Returns where all units belong once the proposed ones are submitted and launched.
fn places<'a>(view: &'a View, proposed: &[&(Parsed, Content)]) -> Places<'a> {
    let existing = view
        .placeables()
        .filter(|unit| proposed.iter().all(|(parsed, _)| parsed.name != *unit.name));
    let submitted = proposed
        .iter()
        .zip(view.revision..)
        .map(|((parsed, _), revision)| {
            let existing = view.units.get(&parsed.name);
            Placeable {
                name: &parsed.name,
                // New units are younger than all existing ones, in this order.
                created: existing.map_or(revision + 1, |unit| unit.created),
                target: TargetState::Launched,
                options: &parsed.options,
            }
        });
    let all: Vec<Placeable<'_>> = existing.chain(submitted).collect();
    let mut places = Places::new();
    for machine in view.all_machines().into_values() {
        places
            .entry(&machine.metadata)
            .or_insert_with_key(|metadata| place(all.iter().copied(), metadata));
    }
    places
}

fn planned(view: &View, places: &Places<'_>, proposed: &(Parsed, Content)) -> PlannedUnit {
    let (parsed, content) = proposed;
    let existing = view.units.get(&parsed.name).map(|unit| Existing {
        record: &unit.record,
        same: unit.record.newest().content == *content,
        stable: unit.stable(),
        rolled_back: {
            let past = view.history.iter();
            let past = past.filter(|((name, _), _)| *name == parsed.name);
            rolled_back(content, &unit.record, past.map(|(_, past)| past))
        },
    });
    let machines = view.all_machines().into_iter().map(|(id, machine)| {
        let verdict = places
            .get(&machine.metadata)
            .and_then(|verdicts| verdicts.get(&parsed.name));
        let report = view.reports.get(id);
        OnMachine {
            id,
            primary_ip: &machine.primary_ip,
            presence: machine.presence,
            scheduling: parsed.options.scheduling_on(machine.scheduling),
            verdict: verdict.cloned().unwrap_or(Verdict::Not(Reason::Inactive)),
            report: report.and_then(|report| report.units.get(&parsed.name)),
        }
    });
    preview(&Proposed {
        parsed,
        existing,
        machines: machines.collect(),
    })
}
