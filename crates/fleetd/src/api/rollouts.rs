//! `rollouts`: the state of every global unit, the state of one unit on each machine, its
//! revisions, and orders.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use fleet_core::api::{
    OrderAction, OrderBody, RevisionContent, RevisionList, RevisionRow, RolloutList, RolloutStatus,
};
use fleet_core::keys;
use fleet_core::machine::Metadata;
use fleet_core::place::{Reason, Verdict};
use fleet_core::record::{Revision, UnitRecord, origin};
use fleet_core::rollout::{Order, Survey, Surveyed, Unknown};
use fleet_core::unit::{Parsed, TargetState, UnitName};

use super::error::{ApiError, Result};
use super::view::{View, ViewedUnit};
use super::{Api, BY, Query, body, heavy, long_poll};
use crate::registry::now;

/// The keys that the state of a unit depends on. Other units are among them because they may
/// conflict with it.
const LISTED: [&str; 5] = [
    keys::UNITS,
    keys::MACHINES,
    keys::METADATA,
    keys::REPORTS,
    keys::KNOWN,
];
pub(super) const DETAILED: [&str; 7] = [
    keys::UNITS,
    keys::MACHINES,
    keys::METADATA,
    keys::REPORTS,
    keys::KNOWN,
    keys::GRANTS,
    keys::ROLLOUTS,
];

pub(super) async fn list(State(api): State<Api>) -> Result<Json<RolloutList>> {
    let view = View::read(&**api.registry.store(), &LISTED).await?;
    Ok(Json(heavy(move || rows(&view)).await))
}

fn rows(view: &View) -> RolloutList {
    let places = Places::of(view);
    let units = view.units.iter();
    let global = units.filter(|(name, unit)| {
        let is_stored = name.is_template() && unit.record.target == TargetState::Inactive;
        unit.heading().options.global && !is_stored
    });
    RolloutList {
        registry_revision: view.revision,
        rollouts: global
            .map(|(name, unit)| survey(view, &places, name, unit).row())
            .collect(),
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<RolloutStatus>> {
    let name = UnitName::parse(&name).map_err(|_| ApiError::no_unit())?;
    long_poll::wait(&**api.registry.store(), &DETAILED, query.after).await?;
    Ok(Json(status(&api, &name).await?))
}

pub(super) async fn status(api: &Api, name: &UnitName) -> Result<RolloutStatus> {
    let view = View::of_unit(&**api.registry.store(), &DETAILED, name).await?;
    let name = name.clone();
    let status = heavy(move || {
        let unit = view.units.get(&name)?;
        let survey = survey(&view, &Places::of(&view), &name, unit);
        Some(survey.status(view.revision))
    });
    status.await.ok_or_else(ApiError::no_unit)
}

pub(super) async fn order(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<RolloutStatus>> {
    body::require_json(&headers)?;
    let asked: OrderBody = body::decode(&bytes)?;
    let order = match (asked.action, asked.to) {
        (OrderAction::Undo, to) => Order::Undo(to),
        (_, Some(_)) => return Err(ApiError::bad("\"to\" is valid only with the action undo")),
        (OrderAction::Pause, None) => Order::Pause,
        (OrderAction::Resume, None) => Order::Resume,
        (OrderAction::Restart, None) => Order::Restart,
    };
    let name = UnitName::parse(&name).map_err(|_| ApiError::no_unit())?;
    let record = api.registry.order(&name, order, BY).await?;
    let record = record.ok_or_else(ApiError::no_unit)?;
    tracing::info!(unit = %name, by = BY, "{}", told(&name, order, &record));
    Ok(Json(status(&api, &name).await?))
}

/// Returns the text for the journal about the change that an order made.
fn told(name: &UnitName, order: Order, record: &UnitRecord) -> String {
    let verb = match order {
        Order::Pause => "pause",
        Order::Resume => "resume",
        Order::Undo(_) => "undo",
        Order::Restart => "restart",
    };
    let stable = record.stable.number;
    match &record.candidate {
        Some(candidate) => format!(
            "{verb} of {name} ordered over {BY}: revision {} is {}, {stable} stable",
            candidate.revision.number,
            candidate.phase.as_str()
        ),
        None => format!("{verb} of {name} ordered over {BY}: revision {stable} is stable"),
    }
}

pub(super) async fn history(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<RevisionList>> {
    let (name, revisions) = revisions(&api, &name).await?;
    Ok(Json(RevisionList {
        unit: name.to_string(),
        revisions: revisions.into_iter().map(|content| content.row).collect(),
    }))
}

pub(super) async fn revision(
    State(api): State<Api>,
    Path((name, number)): Path<(String, String)>,
) -> Result<Json<RevisionContent>> {
    let (name, revisions) = revisions(&api, &name).await?;
    let numbers: Vec<String> = revisions
        .iter()
        .map(|it| it.row.number.to_string())
        .collect();
    let wanted = revisions
        .into_iter()
        .find(|it| number.parse() == Ok(it.row.number));
    if let Some(RevisionContent { row, content: None }) = &wanted {
        let text = format!("revision {number} of {name} cannot be read: {}", row.reason);
        return Err(ApiError::conflict(text));
    }
    wanted.map(Json).ok_or_else(|| {
        let known = numbers.join(", ");
        let text = format!("unit {name} has no revision {number}; there are {known}");
        ApiError::new(StatusCode::NOT_FOUND, text)
    })
}

/// Returns every revision of a unit with its content, oldest first.
async fn revisions(api: &Api, name: &str) -> Result<(UnitName, Vec<RevisionContent>)> {
    let name = UnitName::parse(name).map_err(|_| ApiError::no_unit())?;
    let found = api.registry.with_history(&name).await?;
    let (stored, history) = found.ok_or_else(ApiError::no_unit)?;
    let past = history.values().filter_map(|past| past.as_ref().ok());
    let candidate = stored.record.candidate.as_ref();
    let all: Vec<&Revision> = past
        .map(|past| &past.revision)
        .chain([&stored.record.stable])
        .chain(candidate.map(|candidate| &candidate.revision))
        .collect();
    let row = |revision: &Revision, state: &str, reason: &str| RevisionContent {
        row: RevisionRow {
            number: revision.number,
            at: revision.at,
            hash: Parsed::parse(name.clone(), &revision.content)
                .hash
                .to_string(),
            state: state.to_owned(),
            reason: match reason {
                "" => origin(revision, all.iter().copied()).unwrap_or_default(),
                reason => reason.to_owned(),
            },
        },
        content: Some(revision.content.clone()),
    };
    let past = history.iter().map(|(number, past)| {
        let past = match past {
            Ok(past) => past,
            Err(why) => return unreadable(*number, why),
        };
        let state = match past.was_rolled_back() {
            true => "rolled-back",
            false => "superseded",
        };
        row(&past.revision, state, past.dropped.as_deref().unwrap_or(""))
    });
    let record = &stored.record;
    let mut revisions: Vec<RevisionContent> = past.collect();
    revisions.push(row(&record.stable, "stable", ""));
    if let Some(candidate) = &record.candidate {
        revisions.push(row(&candidate.revision, "candidate", &candidate.reason));
    }
    // A rolled-back revision may be newer than the stable one.
    revisions.sort_by_key(|content| content.row.number);
    Ok((name, revisions))
}

/// Returns a revision of which only the number is known.
fn unreadable(number: u64, why: &str) -> RevisionContent {
    RevisionContent {
        row: RevisionRow {
            number,
            at: 0,
            hash: String::new(),
            state: "unreadable".to_owned(),
            reason: why.to_owned(),
        },
        content: None,
    }
}

/// The verdicts about units, computed once for all machines with the same metadata.
pub(super) struct Places<'a>(BTreeMap<&'a Metadata, BTreeMap<UnitName, Verdict>>);

impl<'a> Places<'a> {
    pub(super) fn of(view: &'a View) -> Self {
        let mut places = BTreeMap::new();
        for machine in view.all_machines().into_values() {
            places
                .entry(&machine.metadata)
                .or_insert_with_key(|metadata| view.place(metadata));
        }
        Self(places)
    }

    pub(super) fn verdict(&self, metadata: &Metadata, name: &UnitName) -> Verdict {
        let verdicts = self.0.get(metadata);
        verdicts
            .and_then(|verdicts| verdicts.get(name))
            .cloned()
            .unwrap_or(Verdict::Not(Reason::Inactive))
    }
}

pub(super) fn survey<'a>(
    view: &'a View,
    places: &Places<'_>,
    name: &'a UnitName,
    unit: &'a ViewedUnit,
) -> Survey<'a> {
    let machines = view.all_machines().into_iter().map(|(id, machine)| {
        let report = view.reports.get(id);
        let grant = view.grants.get(&(id.clone(), name.clone()));
        let unreadable = view.unreadable.get(id);
        let unreadable = unreadable.map(|why| Unknown::Unreadable(why));
        let untold = report.and_then(|report| report.unknown.as_deref());
        let untold = untold.map(Unknown::Untold);
        Surveyed {
            id,
            primary_ip: &machine.primary_ip,
            presence: machine.presence,
            scheduling: unit.heading().options.scheduling_on(machine.scheduling),
            verdict: places.verdict(&machine.metadata, name),
            report: report.and_then(|report| report.units.get(name)),
            problem: report.and_then(|it| it.problems.get(name.as_str()).map(String::as_str)),
            unknown: unreadable.or(untold),
            held: report.and_then(|report| report.problems.get("registry").map(String::as_str)),
            grant: grant.map(|(grant, written)| (grant, *written)),
        }
    });
    Survey {
        record: &unit.record,
        created: unit.created,
        heading: unit.heading(),
        newest: unit.newest(),
        progress: view.progress.get(name),
        machines: machines.collect(),
        now: now(),
    }
}

#[cfg(test)]
mod tests;
