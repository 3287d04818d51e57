//! The listings, read from an embedded store.

use axum::body::to_bytes;
use axum::http::StatusCode;
use fleet_core::api::ErrorBody;
use fleet_core::machine::Metadata;
use fleet_core::record::{self, MachineRecord, MachineReport, UnitReports};
use fleet_core::unit::UnitName;

use super::*;
use crate::registry::Registry;
use crate::store::{Embedded, Store, Write};

async fn report(store: &Embedded, machine: &str, units: &[&str]) {
    report_of(store, &machine.repeat(32), units).await;
}

async fn report_of(store: &Embedded, id: &str, units: &[&str]) {
    let id = MachineId::parse(id).expect("an id");
    let unit = |name: &&str| {
        let name = UnitName::parse(name).expect("a name");
        (name, record::UnitReport::default())
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
    // The bytes are what every client of fleet 1.0 knows, for both ways of writing them.
    assert_eq!(body, serde_json::to_vec(&page).expect("JSON"));
    Ok(page)
}

#[tokio::test]
async fn pages_with_a_limit_have_whole_machines_and_each_row_once() {
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

/// Returns the pages of a stream, and the error if it ended early. `between` runs after the first
/// page.
async fn streamed(api: &Api, between: impl AsyncFnOnce()) -> (Vec<StatePage>, Option<ErrorBody>) {
    let query = Query {
        stream: true,
        ..Query::default()
    };
    let answer = list(State(api.clone()), query).await.expect("begins");
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/x-ndjson");
    let mut body = answer.into_body().into_data_stream().fuse();
    let mut lines: Vec<_> = body.next().await.into_iter().collect();
    between().await;
    lines.extend(body.collect::<Vec<_>>().await);
    let (mut pages, mut error) = (Vec::new(), None);
    for line in lines {
        let line = line.expect("not broken off");
        assert!(error.is_none() && line.ends_with(b"\n"));
        match line.starts_with(br#"{"error":"#) {
            true => error = Some(serde_json::from_slice(&line).expect("an error")),
            false => pages.push(serde_json::from_slice(&line).expect("a page")),
        }
    }
    (pages, error)
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
    let (pages, error) = streamed(&api, async || ()).await;
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
    let (empty, error) = streamed(&on(Embedded::in_memory()), async || ()).await;
    assert_eq!((empty, error), (Vec::new(), None));
}

#[tokio::test]
async fn stream_that_fails_has_the_error_in_its_last_line() {
    let store = Embedded::in_memory();
    for number in 0..700 {
        report_of(&store, &format!("{number:032x}"), &["x.service"]).await;
    }
    // This store keeps no older revisions to read. The second part may already have been read.
    let (pages, error) = streamed(&on(store.clone()), async || {
        report(&store, "d", &["x.service"]).await;
    })
    .await;
    let rows: usize = pages.iter().map(|page| page.states.len()).sum();
    assert!(0 < rows && rows < 700, "{rows}");
    assert_eq!(error.expect("told").error.code, StatusCode::GONE.as_u16());
}

#[tokio::test]
async fn listing_continues_at_its_own_revision_or_fails() {
    let (store, api) = of_three().await;
    let first = listed(&api, query(1, None)).await;
    let token = first.expect("a page").next_page_token;
    report(&store, "b", &[]).await;
    // This store keeps no older revisions to read.
    let next = listed(&api, query(1, token)).await;
    assert_eq!(next.expect_err("gone").status, StatusCode::GONE);
}
