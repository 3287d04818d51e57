//! `state`: the systemd states of units, one row for each unit on each machine.
//!
//! There are as many rows as machines times units. With `limit`, rows are ordered by machine, and
//! each page is read separately at one revision. With `stream`, all rows come in this order, with a
//! line for each part. So neither side holds them all. Pages of fleet 1.0 are ordered by unit, and
//! each of them needs all rows.

mod rows;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future;
use std::panic::resume_unwind;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use fleet_core::api::{StatePage, UnitReport, UnitState};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, Listed};
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;

use self::rows::{Brief, Row, Rows};
use super::error::{ApiError, Result};
use super::page::{Cursor, page};
use super::reports::{Report, Reports, reports_in};
use super::{Api, Query, apart};
use crate::store::{Entry, Snapshot};

pub(super) async fn list(State(api): State<Api>, query: Query) -> Result<Response> {
    let wanted = Wanted {
        machine: query.machine_id,
        unit: query.unit_name,
        details: query.details,
    };
    if query.stream {
        return stream(&api, wanted).await;
    }
    if let Some(limit) = query.limit {
        return part(&api, wanted, &query.page_tokens, limit.into()).await;
    }
    let states = all(&api, &wanted).await?;
    let (states, next_page_token) = page(states, &query.page_tokens, api.page_limit)?;
    let page = StatePage {
        next_page_token,
        states,
        ..StatePage::default()
    };
    Ok(Json(page).into_response())
}

/// Returns the state on the first machine, as fleet 1.0 answers for a global unit.
pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<UnitState>> {
    let wanted = Wanted {
        machine: None,
        unit: Some(name),
        details: false,
    };
    let first = all(&api, &wanted).await?.into_iter().next();
    first.map(Json).ok_or_else(ApiError::no_unit)
}

/// The rows of a request.
struct Wanted {
    machine: Option<String>,
    unit: Option<String>,
    details: bool,
}

impl Wanted {
    /// Returns the prefix of the reports to read.
    fn prefix(&self) -> String {
        let asked = self.machine.as_deref();
        let machine = asked.and_then(|id| MachineId::parse(id).ok());
        let machine = machine.filter(|id| asked == Some(id.as_str()));
        machine.map_or_else(|| keys::REPORTS.to_owned(), |id| keys::report(&id))
    }

    /// Calls `take` with each row of one report. An unreadable report has none.
    fn rows(&self, report: &Report, mut take: impl FnMut(&Row<'_>)) {
        let machine = report.machine.as_str();
        if self.machine.as_ref().is_some_and(|it| it != machine) {
            return;
        }
        let wanted = |name: &str| self.unit.as_ref().is_none_or(|it| it == name);
        if self.details {
            let read = report.decode::<Listed<'_, record::UnitReport>>();
            let read = read.map(|read| read.units);
            for (name, unit) in read.unwrap_or_default() {
                if wanted(&name) {
                    let unit = UnitReport::from(unit);
                    take(&Row::new(machine, &name, &Brief::of(&unit), Some(&unit)));
                }
            }
        } else {
            let read = report.decode::<Listed<'_, Brief<'_>>>();
            let read = read.map(|read| read.units);
            for (name, unit) in read.unwrap_or_default() {
                if wanted(&name) {
                    take(&Row::new(machine, &name, &unit, None));
                }
            }
        }
    }
}

/// A page of whole machines, while it is filled.
struct Page {
    wanted: Wanted,
    limit: usize,
    rows: Rows,
    /// The last key on the page. `None` until there are enough rows and more behind them.
    after: Option<String>,
}

impl Page {
    /// Adds rows of these reports until the page is full. `more` says whether other reports follow.
    fn fill(mut self, reports: &[Report], more: bool) -> Self {
        for (report, left) in reports.iter().zip((0..reports.len()).rev()) {
            self.wanted.rows(report, |row| self.rows.push(row));
            if self.rows.count >= self.limit && (more || left > 0) {
                self.after = Some(report.last_key.clone());
                break;
            }
        }
        self
    }
}

/// Returns all rows, ordered by unit, then machine.
async fn all(api: &Api, wanted: &Wanted) -> Result<Vec<UnitState>> {
    let snapshot = api.registry.store().list(&[&wanted.prefix()]).await?;
    let mut rows = Vec::new();
    for report in reports_in(&snapshot) {
        wanted.rows(&report, |row| rows.push(row.to_state()));
    }
    rows.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    Ok(rows)
}

/// Returns rows of whole machines, ordered by machine, then unit, until there are `limit`, and a
/// cursor if there are more.
async fn part(api: &Api, wanted: Wanted, tokens: &[String], limit: usize) -> Result<Response> {
    let cursor = Cursor::of(tokens)?.map(|it| (it.revision, it.after));
    let (at, after) = cursor.unzip();
    let store = api.registry.store().clone();
    let mut reports = Reports::new(store, wanted.prefix(), after, at);
    let mut page = Page {
        wanted,
        limit,
        rows: Rows::default(),
        after: None,
    };
    let mut read = 0;
    loop {
        let some = reports.some().await?;
        if some.is_empty() {
            return Ok(page.rows.page(None));
        }
        read += some.len();
        let more = reports.more();
        page = apart(move || page.fill(&some, more)).await;
        if let Some(after) = page.after {
            let revision = reports.revision().unwrap_or(0);
            return Ok(page.rows.page(Some(Cursor { revision, after }.token())));
        }
        // Wants as many reports as are needed if they are like those so far.
        let left = limit.saturating_sub(page.rows.count);
        reports.want((left * read).checked_div(page.rows.count).unwrap_or(left));
    }
}

/// Returns all rows, ordered by machine, then unit, in one answer. It has a line for each part, so
/// that neither side holds them all. The last line is the error, if the rest cannot be read.
async fn stream(api: &Api, wanted: Wanted) -> Result<Response> {
    let store = api.registry.store().clone();
    let mut reports = Reports::new(store.clone(), wanted.prefix(), None, None);
    let (first, machines) = tokio::join!(reports.some(), store.list(&[keys::MACHINES]));
    let (first, machines) = (first?, machines?);
    reports.want_all();
    let addresses = apart(move || addresses(&machines)).await;
    let lines = Arc::new(Lines { wanted, addresses });
    let first = tokio::spawn(future::ready((reports, Ok(first))));
    let told = stream::unfold(Some(first), move |part| {
        let lines = Arc::clone(&lines);
        async move {
            let read = part?.await;
            let (mut reports, some) =
                read.unwrap_or_else(|error| resume_unwind(error.into_panic()));
            let some = match some {
                Ok(some) if some.is_empty() => return None,
                Ok(some) => some,
                Err(error) => return Some((ApiError::from(error).into_line(), None)),
            };
            // The next part is read while this one is serialised and sent.
            let next = tokio::spawn(async move {
                let some = reports.some().await;
                (reports, some)
            });
            let line = apart(move || lines.line(&some)).await;
            Some((line, Some(next)))
        }
    });
    let told = told.map(Ok::<_, Infallible>);
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(told)).into_response())
}

/// Returns the addresses of live machines. A machine whose presence cannot be read has none.
fn addresses(machines: &Snapshot) -> HashMap<MachineId, String> {
    #[derive(Deserialize)]
    struct Address {
        primary_ip: String,
    }
    let address = |(key, entry): (&String, &Entry)| {
        let machine = keys::machine_of(keys::MACHINES, key)?;
        let address: Address = record::decode(&entry.value).ok()?;
        Some((machine, address.primary_ip))
    };
    machines.entries.iter().filter_map(address).collect()
}

/// The parts of a stream's lines, except the reports.
struct Lines {
    wanted: Wanted,
    addresses: HashMap<MachineId, String>,
}

impl Lines {
    /// Returns a line with the rows of these reports, and the addresses of their machines.
    fn line(&self, reports: &[Report]) -> Vec<u8> {
        let (mut rows, mut addresses) = (Rows::default(), BTreeMap::new());
        for report in reports {
            let before = rows.count;
            self.wanted.rows(report, |row| rows.push(row));
            let address = self.addresses.get(&report.machine);
            let address = address.filter(|_| rows.count > before);
            addresses.extend(address.map(|it| (report.machine.to_string(), it.clone())));
        }
        rows.line(addresses)
    }
}

#[cfg(test)]
mod tests;
