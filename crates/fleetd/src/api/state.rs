//! `state`: what the machines' systemds say, one row for each unit on each machine.
//!
//! There are as many rows as machines times units. Whoever asks for a `limit` gets them machine by machine, each page
//! read by itself at one revision, so that nobody holds them all. The original's pages are ordered by unit, for which all
//! of them are read each time.

use std::borrow::Cow;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use fleet_core::api::{StatePage, UnitState};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::UnitReport;
use fleet_core::unit::UnitName;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, Result};
use super::page::{Cursor, page};
use super::reports::{Report, Reports, reports_in};
use super::{Api, Query};

pub(super) async fn list(State(api): State<Api>, query: Query) -> Result<Response> {
    let wanted = Wanted {
        machine: query.machine_id.as_deref(),
        unit: query.unit_name.as_deref(),
        details: query.details,
    };
    if let Some(limit) = query.limit {
        return part(&api, &wanted, &query.page_tokens, limit.into()).await;
    }
    let states = all(&api, &wanted).await?;
    let (states, next_page_token) = page(states, &query.page_tokens, api.page_limit)?;
    let page = StatePage {
        next_page_token,
        states,
    };
    Ok(Json(page).into_response())
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

    /// Hands out the rows of one report. One that cannot be read has none.
    fn rows(&self, report: &Report, mut take: impl FnMut(&Row<'_>)) {
        let machine = report.machine.as_str();
        if self.machine.is_some_and(|wanted| wanted != machine) {
            return;
        }
        let wanted = |name: &UnitName| self.unit.is_none_or(|wanted| wanted == name.as_str());
        if self.details {
            let read = report.decode::<UnitReport>().map(|read| read.units);
            for (name, unit) in read.unwrap_or_default() {
                if wanted(&name) {
                    take(&Row::new(machine, &name, &Brief::of(&unit), Some(&unit)));
                }
            }
        } else {
            let read = report.decode::<Brief<'_>>().map(|read| read.units);
            for (name, unit) in read.unwrap_or_default() {
                if wanted(&name) {
                    take(&Row::new(machine, &name, &unit, None));
                }
            }
        }
    }
}

/// What a row shows of a [`UnitReport`].
#[derive(Deserialize)]
struct Brief<'a> {
    #[serde(borrow)]
    load: Cow<'a, str>,
    #[serde(borrow)]
    active: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
}

impl<'a> Brief<'a> {
    fn of(unit: &'a UnitReport) -> Self {
        Self {
            load: Cow::from(&unit.load),
            active: Cow::from(&unit.active),
            sub: Cow::from(&unit.sub),
            hash: Cow::from(&unit.hash),
        }
    }
}

/// A [`UnitState`] that is written where its report is read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    hash: &'a str,
    #[serde(rename = "machineID")]
    machine_id: &'a str,
    name: &'a str,
    systemd_active_state: &'a str,
    systemd_load_state: &'a str,
    systemd_sub_state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a UnitReport>,
}

impl<'a> Row<'a> {
    fn new(
        machine_id: &'a str,
        name: &'a UnitName,
        unit: &'a Brief<'_>,
        report: Option<&'a UnitReport>,
    ) -> Self {
        Self {
            hash: &unit.hash,
            machine_id,
            name: name.as_str(),
            systemd_active_state: &unit.active,
            systemd_load_state: &unit.load,
            systemd_sub_state: &unit.sub,
            report,
        }
    }

    fn to_state(&self) -> UnitState {
        UnitState {
            hash: self.hash.to_owned(),
            machine_id: self.machine_id.to_owned(),
            name: self.name.to_owned(),
            systemd_active_state: self.systemd_active_state.to_owned(),
            systemd_load_state: self.systemd_load_state.to_owned(),
            systemd_sub_state: self.systemd_sub_state.to_owned(),
            report: self.report.cloned(),
        }
    }
}

/// Rows of a page as they are sent: of thousands nothing else is kept.
#[derive(Default)]
struct Rows {
    json: Vec<u8>,
    count: usize,
}

impl Rows {
    fn push(&mut self, row: &Row<'_>) {
        if self.count > 0 {
            self.json.push(b',');
        }
        serde_json::to_writer(&mut self.json, row).expect("a row is a map with text keys");
        self.count += 1;
    }

    /// A [`StatePage`] of them.
    fn page(mut self, next_page_token: Option<String>) -> Response {
        let bare = StatePage {
            next_page_token,
            states: Vec::new(),
        };
        let mut head = serde_json::to_vec(&bare).expect("a page is a map with text keys");
        if self.count > 0 {
            head.pop();
            if bare.next_page_token.is_some() {
                head.push(b',');
            }
            head.extend_from_slice(br#""states":["#);
            self.json.extend_from_slice(b"]}");
        }
        self.json.splice(0..0, head);
        let json = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, json)], self.json).into_response()
    }
}

/// All rows, ordered by unit, then machine.
async fn all(api: &Api, wanted: &Wanted<'_>) -> Result<Vec<UnitState>> {
    let snapshot = api.registry.store().list(&[&wanted.prefix()]).await?;
    let mut rows = Vec::new();
    for report in reports_in(&snapshot) {
        wanted.rows(&report, |row| rows.push(row.to_state()));
    }
    rows.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    Ok(rows)
}

/// The rows of whole machines, ordered by machine, then unit, until there are `limit`; and how to go on.
async fn part(api: &Api, wanted: &Wanted<'_>, tokens: &[String], limit: usize) -> Result<Response> {
    let cursor = Cursor::of(tokens)?.map(|cursor| (cursor.revision, cursor.after));
    let (at, after) = cursor.unzip();
    let store = api.registry.store().clone();
    let mut reports = Reports::new(store, wanted.prefix(), after, at);
    let (mut rows, mut read) = (Rows::default(), 0);
    while let Some(report) = reports.next().await? {
        wanted.rows(&report, |row| rows.push(row));
        read += 1;
        if rows.count >= limit && reports.more() {
            let (revision, after) = (reports.revision().unwrap_or(0), report.last_key);
            return Ok(rows.page(Some(Cursor { revision, after }.token())));
        }
        // As many as it takes if the others are like those so far.
        let left = limit.saturating_sub(rows.count);
        reports.want((left * read).checked_div(rows.count).unwrap_or(left));
    }
    Ok(rows.page(None))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::to_bytes;
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

    async fn listed(api: &Api, query: Query) -> Result<StatePage> {
        let answer = list(State(api.clone()), query).await?;
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        let body = to_bytes(answer.into_body(), usize::MAX).await;
        let body = body.expect("all of it");
        let page: StatePage = serde_json::from_slice(&body).expect("a page");
        // Whatever writes it, it is what every client knows.
        assert_eq!(body, serde_json::to_vec(&page).expect("JSON"));
        Ok(page)
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
                let page = listed(&api, query(limit, token)).await.expect("a page");
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
        let first = listed(&api, query(1, None)).await;
        let token = first.expect("a page").next_page_token;
        report(&store, "b", &[]).await;
        // This store keeps no older revisions to read.
        let next = listed(&api, query(1, token)).await;
        assert_eq!(next.expect_err("gone").status, StatusCode::GONE);
    }
}
