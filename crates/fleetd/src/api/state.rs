//! `state`: what the machines' systemds say, one row for each unit on each machine.
//!
//! There are as many rows as machines times units. Whoever asks for a `limit` gets them machine by machine, each page
//! read by itself at one revision, so that nobody holds them all; whoever asks for a `stream` gets all of them so, a line for
//! each part. The original's pages are ordered by unit, for which all of them are read each time.

use std::borrow::Cow;
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
use fleet_core::api::{StatePage, UnitState};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, Listed, UnitReport};
use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

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

/// The first machine's state, as the original answers for a global unit.
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

/// The rows that are asked for.
struct Wanted {
    machine: Option<String>,
    unit: Option<String>,
    details: bool,
}

impl Wanted {
    /// Where they are to be looked for.
    fn prefix(&self) -> String {
        let asked = self.machine.as_deref();
        let machine = asked.and_then(|id| MachineId::parse(id).ok());
        let machine = machine.filter(|id| asked == Some(id.as_str()));
        machine.map_or_else(|| keys::REPORTS.to_owned(), |id| keys::report(&id))
    }

    /// Hands out the rows of one report. One that cannot be read has none.
    fn rows(&self, report: &Report, mut take: impl FnMut(&Row<'_>)) {
        let machine = report.machine.as_str();
        if self.machine.as_ref().is_some_and(|it| it != machine) {
            return;
        }
        let wanted = |name: &str| self.unit.as_ref().is_none_or(|it| it == name);
        if self.details {
            let read = report.decode::<Listed<'_, UnitReport>>();
            let read = read.map(|read| read.units);
            for (name, unit) in read.unwrap_or_default() {
                if wanted(&name) {
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
        name: &'a str,
        unit: &'a Brief<'_>,
        report: Option<&'a UnitReport>,
    ) -> Self {
        Self {
            hash: &unit.hash,
            machine_id,
            name,
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
    fn page(self, next_page_token: Option<String>) -> Response {
        let bare = StatePage {
            next_page_token,
            ..StatePage::default()
        };
        let json = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, json)], self.into_json(&bare)).into_response()
    }

    /// The same as a line of a stream.
    fn line(self, addresses: BTreeMap<String, String>) -> Vec<u8> {
        let bare = StatePage {
            addresses,
            ..StatePage::default()
        };
        let mut line = self.into_json(&bare);
        line.push(b'\n');
        line
    }

    /// That page, with these rows in it.
    fn into_json(mut self, bare: &StatePage) -> Vec<u8> {
        let mut head = serde_json::to_vec(bare).expect("a page is a map with text keys");
        if self.count > 0 {
            head.pop();
            if head.len() > 1 {
                head.push(b',');
            }
            head.extend_from_slice(br#""states":["#);
            self.json.extend_from_slice(b"]}");
        }
        self.json.splice(0..0, head);
        self.json
    }
}

/// A page of whole machines that grows.
struct Page {
    wanted: Wanted,
    limit: usize,
    rows: Rows,
    /// The last key that it took, once there are enough rows and more behind them.
    after: Option<String>,
}

impl Page {
    /// Adds the rows of as many of these reports as it takes; `more` come behind them.
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

/// All rows, ordered by unit, then machine.
async fn all(api: &Api, wanted: &Wanted) -> Result<Vec<UnitState>> {
    let snapshot = api.registry.store().list(&[&wanted.prefix()]).await?;
    let mut rows = Vec::new();
    for report in reports_in(&snapshot) {
        wanted.rows(&report, |row| rows.push(row.to_state()));
    }
    rows.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    Ok(rows)
}

/// The rows of whole machines, ordered by machine, then unit, until there are `limit`; and how to go on.
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
        // As many as it takes if the others are like those so far.
        let left = limit.saturating_sub(page.rows.count);
        reports.want((left * read).checked_div(page.rows.count).unwrap_or(left));
    }
}

/// All rows, ordered by machine, then unit, in one answer: a line for each part, so that nobody holds them all. Why the rest
/// cannot be read is the last line.
async fn stream(api: &Api, wanted: Wanted) -> Result<Response> {
    let store = api.registry.store().clone();
    let mut reports = Reports::new(store.clone(), wanted.prefix(), None, None);
    let (first, machines) = tokio::join!(reports.some(), store.list(&[keys::MACHINES]));
    let (first, machines) = (first?, machines?);
    reports.want_all();
    let streamed = Arc::new((wanted, apart(move || addresses(&machines)).await));
    let first = tokio::spawn(future::ready((reports, Ok(first))));
    let lines = stream::unfold(Some(first), move |part| {
        let streamed = Arc::clone(&streamed);
        async move {
            let read = part?.await;
            let (mut reports, some) =
                read.unwrap_or_else(|error| resume_unwind(error.into_panic()));
            let some = match some {
                Ok(some) if some.is_empty() => return None,
                Ok(some) => some,
                Err(error) => return Some((ApiError::from(error).into_line(), None)),
            };
            // The next part is read while this one is made and sent.
            let next = tokio::spawn(async move {
                let some = reports.some().await;
                (reports, some)
            });
            let line = apart(move || line(&streamed.0, &streamed.1, &some));
            Some((line.await, Some(next)))
        }
    });
    let lines = lines.map(Ok::<_, Infallible>);
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response())
}

/// The addresses of live machines. One whose presence cannot be read has none.
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

/// A line of a stream: the rows of these reports, and the addresses of their machines.
fn line(wanted: &Wanted, known: &HashMap<MachineId, String>, reports: &[Report]) -> Vec<u8> {
    let (mut rows, mut addresses) = (Rows::default(), BTreeMap::new());
    for report in reports {
        let before = rows.count;
        wanted.rows(report, |row| rows.push(row));
        let address = known.get(&report.machine).filter(|_| rows.count > before);
        addresses.extend(address.map(|it| (report.machine.to_string(), it.clone())));
    }
    rows.line(addresses)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use axum::body::to_bytes;
    use axum::http::StatusCode;
    use fleet_core::api::ErrorBody;
    use fleet_core::machine::Metadata;
    use fleet_core::record::{self, MachineRecord, MachineReport, UnitReports};
    use fleet_core::unit::UnitName;

    use super::*;
    use crate::registry::Registry;
    use crate::store::{self, Embedded, Guard, LeaseId, Snapshot, Store, Watch, Write};

    async fn report(store: &Embedded, machine: &str, units: &[&str]) {
        report_of(store, &machine.repeat(32), units).await;
    }

    async fn report_of(store: &Embedded, id: &str, units: &[&str]) {
        let id = MachineId::parse(id).expect("an id");
        let unit = |name: &&str| {
            let name = UnitName::parse(name).expect("a name");
            (name, UnitReport::default())
        };
        let report = MachineReport {
            units: units.iter().map(unit).collect::<UnitReports>(),
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
        (store.clone(), on(store))
    }

    fn on(store: impl Store + 'static) -> Api {
        Api {
            registry: Registry::new(Arc::new(store)),
            page_limit: 100,
        }
    }

    /// A store in which something changes after each answer.
    struct Restless(Embedded);

    #[async_trait]
    impl Store for Restless {
        async fn list(&self, prefixes: &[&str]) -> store::Result<Snapshot> {
            let listed = self.0.list(prefixes).await;
            report(&self.0, "d", &[]).await;
            report(&self.0, "d", &["x.service"]).await;
            listed
        }

        async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> store::Result<u64> {
            self.0.commit(guards, writes).await
        }

        async fn watch(&self, prefixes: &[&str], after: u64) -> store::Result<Box<dyn Watch>> {
            self.0.watch(prefixes, after).await
        }

        async fn grant(&self, ttl: Duration) -> store::Result<LeaseId> {
            self.0.grant(ttl).await
        }

        async fn renew(&self, lease: LeaseId) -> store::Result<()> {
            self.0.renew(lease).await
        }

        async fn revoke(&self, lease: LeaseId) -> store::Result<()> {
            self.0.revoke(lease).await
        }
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

    /// The lines of a stream.
    async fn streamed(api: &Api) -> (Vec<StatePage>, Option<ErrorBody>) {
        let query = Query {
            stream: true,
            ..Query::default()
        };
        let answer = list(State(api.clone()), query).await.expect("begins");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/x-ndjson");
        let body = to_bytes(answer.into_body(), usize::MAX).await;
        let body = String::from_utf8(body.expect("all of it").into()).expect("text");
        assert!(body.is_empty() || body.ends_with('\n'));
        let (last, lines) = match body.lines().last() {
            Some(last) if last.starts_with(r#"{"error":"#) => {
                let lines = body.lines().count() - 1;
                (serde_json::from_str(last).ok(), lines)
            }
            _ => (None, body.lines().count()),
        };
        let page = |line| serde_json::from_str(line).expect("a page");
        (body.lines().take(lines).map(page).collect(), last)
    }

    #[tokio::test]
    async fn a_stream_has_every_row_once_in_several_lines() {
        let (store, api) = of_three().await;
        let numbers = 0..500;
        let id = |number| format!("{number:032x}");
        for number in numbers.clone() {
            report_of(&store, &id(number), &["x.service", "y.service"]).await;
        }
        let last = "c".repeat(32);
        let presence = MachineRecord {
            primary_ip: "10.0.0.3".to_owned(),
            metadata: Metadata::new(),
            version: String::new(),
            session: 1,
        };
        let put = Write::Put {
            key: keys::machine(&MachineId::parse(&last).expect("an id")),
            value: record::encode(&presence),
            lease: None,
        };
        store.commit(vec![], vec![put]).await.expect("written");
        let (pages, error) = streamed(&api).await;
        assert_eq!(error, None);
        assert!(pages.len() > 1);
        let addresses = pages.iter().flat_map(|page| &page.addresses);
        let addresses: Vec<_> = addresses.map(|(id, ip)| (&**id, &**ip)).collect();
        assert_eq!(addresses, [(&*last, "10.0.0.3")]);
        let rows = pages.iter().flat_map(|page| &page.states);
        let rows: Vec<_> = rows.map(|row| (&*row.machine_id, &*row.name)).collect();
        let machines = numbers.map(id);
        let machines: Vec<_> = machines
            .chain(["a", "b", "c"].map(|digit| digit.repeat(32)))
            .collect();
        let of = |id| [(id, "x.service"), (id, "y.service")];
        let all = machines.iter().flat_map(|id| of(id.as_str()));
        assert_eq!(rows, all.collect::<Vec<_>>());
        let (empty, error) = streamed(&on(Embedded::in_memory())).await;
        assert_eq!((empty, error), (Vec::new(), None));
    }

    #[tokio::test]
    async fn a_stream_that_cannot_go_on_says_so_in_its_last_line() {
        let store = Embedded::in_memory();
        for number in 0..500 {
            report_of(&store, &format!("{number:032x}"), &["x.service"]).await;
        }
        // After each answer something changes, and this store keeps no older revisions to read.
        let (pages, error) = streamed(&on(Restless(store))).await;
        assert_eq!(pages.len(), 1);
        assert_eq!(error.expect("told").error.code, StatusCode::GONE.as_u16());
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
