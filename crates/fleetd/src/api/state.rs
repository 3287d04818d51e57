//! `state`: what the machines' systemds say, one row for each unit on each machine.
//!
//! There are as many rows as machines times units. Whoever asks for a `limit` gets them machine by machine, each page
//! read by itself at one revision, so that nobody holds them all. The original's pages are ordered by unit, for which all
//! of them are read each time.

use axum::Json;
use axum::extract::{Path, State};
use fleet_core::api::{StatePage, UnitState};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{RecordError, UnitReport};
use fleet_core::unit::UnitName;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{ApiError, Result};
use super::page::{Cursor, page};
use super::reports::{Report, Reports, reports_in};
use super::{Api, Query};

pub(super) async fn list(State(api): State<Api>, query: Query) -> Result<Json<StatePage>> {
    let wanted = Wanted {
        machine: query.machine_id.as_deref(),
        unit: query.unit_name.as_deref(),
        details: query.details,
    };
    let (states, next_page_token) = match query.limit {
        Some(limit) => part(&api, &wanted, &query.page_tokens, limit.into()).await?,
        None => page(
            all(&api, &wanted).await?,
            &query.page_tokens,
            api.page_limit,
        )?,
    };
    Ok(Json(StatePage {
        next_page_token,
        states,
    }))
}

/// The first machine's state, as the original answers for a global unit.
pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<UnitState>> {
    let wanted = Wanted {
        machine: None,
        unit: Some(&name),
        details: false,
    };
    let first = all(&api, &wanted).await?.into_iter().next();
    first.map(Json).ok_or_else(ApiError::no_unit)
}

/// The rows that are asked for.
struct Wanted<'a> {
    machine: Option<&'a str>,
    unit: Option<&'a str>,
    details: bool,
}

impl Wanted<'_> {
    /// Where they are to be looked for.
    fn prefix(&self) -> String {
        let machine = self.machine.and_then(|id| MachineId::parse(id).ok());
        let machine = machine.filter(|id| self.machine == Some(id.as_str()));
        machine.map_or_else(|| keys::REPORTS.to_owned(), |id| keys::report(&id))
    }

    /// Adds the rows of one report. One that cannot be read has none.
    fn add(&self, report: &Report, rows: &mut Vec<UnitState>) {
        let id = &report.machine;
        if self.machine.is_some_and(|wanted| wanted != id.as_str()) {
            return;
        }
        let units = if self.details {
            rows_of::<UnitReport>(report).map(|units| units.map(in_full).collect::<Vec<_>>())
        } else {
            rows_of::<Brief>(report).map(|units| units.map(in_brief).collect::<Vec<_>>())
        };
        let units = units.unwrap_or_default().into_iter();
        let ours = units.filter(|row| self.unit.is_none_or(|wanted| wanted == row.name));
        rows.extend(ours.map(|row| UnitState {
            machine_id: id.to_string(),
            ..row
        }));
    }
}

/// What a row shows of a [`UnitReport`].
#[derive(Deserialize)]
struct Brief {
    load: String,
    active: String,
    sub: String,
    hash: String,
}

fn rows_of<T: DeserializeOwned>(
    report: &Report,
) -> std::result::Result<impl Iterator<Item = (UnitName, T)>, RecordError> {
    report.decode().map(|report| report.units.into_iter())
}

fn in_brief((name, unit): (UnitName, Brief)) -> UnitState {
    UnitState {
        hash: unit.hash,
        machine_id: String::new(),
        name: name.to_string(),
        systemd_active_state: unit.active,
        systemd_load_state: unit.load,
        systemd_sub_state: unit.sub,
        report: None,
    }
}

fn in_full((name, unit): (UnitName, UnitReport)) -> UnitState {
    let brief = Brief {
        load: unit.load.clone(),
        active: unit.active.clone(),
        sub: unit.sub.clone(),
        hash: unit.hash.clone(),
    };
    UnitState {
        report: Some(unit),
        ..in_brief((name, brief))
    }
}

/// All rows, ordered by unit, then machine.
async fn all(api: &Api, wanted: &Wanted<'_>) -> Result<Vec<UnitState>> {
    let snapshot = api.registry.store().list(&[&wanted.prefix()]).await?;
    let mut rows = Vec::new();
    for report in reports_in(&snapshot) {
        wanted.add(&report, &mut rows);
    }
    rows.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    Ok(rows)
}

/// The rows of whole machines, ordered by machine, then unit, until there are `limit`; and how to go on.
async fn part(
    api: &Api,
    wanted: &Wanted<'_>,
    tokens: &[String],
    limit: usize,
) -> Result<(Vec<UnitState>, Option<String>)> {
    let cursor = Cursor::of(tokens)?.map(|cursor| (cursor.revision, cursor.after));
    let (at, mut after) = cursor.unzip();
    let store = api.registry.store().clone();
    let mut reports = Reports::new(store, wanted.prefix(), after.clone(), at);
    let mut rows = Vec::new();
    while let Some(report) = reports.next().await? {
        if rows.len() >= limit {
            let (revision, after) = (reports.revision().unwrap_or(0), after.unwrap_or_default());
            return Ok((rows, Some(Cursor { revision, after }.token())));
        }
        wanted.add(&report, &mut rows);
        after = Some(report.last_key);
    }
    Ok((rows, None))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::StatusCode;
    use fleet_core::record::{self, MachineReport};

    use super::*;
    use crate::registry::Registry;
    use crate::store::{Embedded, Store as _, Write};

    async fn report(store: &Embedded, machine: &str, units: &[&str]) {
        let id = MachineId::parse(&machine.repeat(32)).expect("an id");
        let unit = |name: &&str| {
            let name = UnitName::parse(name).expect("a name");
            (name, UnitReport::default())
        };
        let report = MachineReport {
            units: units.iter().map(unit).collect(),
            ..MachineReport::default()
        };
        let write = Write::Put {
            key: keys::report(&id),
            value: record::encode(&report),
            lease: None,
        };
        store.commit(vec![], vec![write]).await.expect("written");
    }

    async fn of_three() -> (Embedded, Api) {
        let store = Embedded::in_memory();
        for machine in ["a", "b", "c"] {
            report(&store, machine, &["x.service", "y.service"]).await;
        }
        let registry = Registry::new(Arc::new(store.clone()));
        let page_limit = 100;
        (
            store,
            Api {
                registry,
                page_limit,
            },
        )
    }

    fn query(limit: u16, token: Option<String>) -> Query {
        Query {
            limit: Some(limit),
            page_tokens: token.into_iter().collect(),
            ..Query::default()
        }
    }

    #[tokio::test]
    async fn pages_with_a_limit_hold_whole_machines_and_every_row_once() {
        let (_, api) = of_three().await;
        for (limit, sizes) in [
            (1, vec![2, 2, 2]),
            (3, vec![4, 2]),
            (4, vec![4, 2]),
            (9, vec![6]),
        ] {
            let (mut token, mut pages) = (None, Vec::new());
            loop {
                let page = list(State(api.clone()), query(limit, token)).await;
                let page = page.expect("a page").0;
                pages.push(page.states);
                token = page.next_page_token;
                if token.is_none() {
                    break;
                }
            }
            let got: Vec<usize> = pages.iter().map(Vec::len).collect();
            assert_eq!(got, sizes, "limit {limit}");
            let rows: Vec<_> = pages.concat();
            let rows = rows.iter().map(|row| (&row.machine_id[..1], &*row.name));
            let all = ["a", "b", "c"].map(|it| [(it, "x.service"), (it, "y.service")]);
            assert_eq!(rows.collect::<Vec<_>>(), all.concat());
        }
    }

    #[tokio::test]
    async fn a_listing_goes_on_at_its_own_revision_or_says_that_it_cannot() {
        let (store, api) = of_three().await;
        let first = list(State(api.clone()), query(1, None)).await;
        let token = first.expect("a page").0.next_page_token;
        report(&store, "b", &[]).await;
        // This store keeps no older revisions to read.
        let next = list(State(api), query(1, token)).await;
        assert_eq!(next.expect_err("gone").status, StatusCode::GONE);
    }
}
