//! Values in the registry that cannot be read, under every kind of key while an update goes on:
//! they cost one unit or one machine, everybody is told, and the others go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use fleet_core::keys;
use fleet_core::record::{self, ClusterRecord, Grant, ReportChanges};
use fleet_core::rollout::Phase;
use fleetd::registry::Registry;
use fleetd::store::{Embedded, Store as _, Write};
use serde_json::Value;
use tokio::time::sleep;
use tower::ServiceExt as _;

use super::fleet::{Fleet, quiet, service, set, unit};
use super::held::engine;
use super::rollouts::ten;
use super::stage::{id, settle};

const WEB: &str = "web.service";
const BAD: &str = "bad.service";

/// What somebody asks any fleetd.
async fn ask(store: &Embedded, path: &str) -> Value {
    let registry = Registry::new(Arc::new(store.clone()));
    let router = fleetd::api::router(registry, 100);
    let request = Request::get(format!("/fleet/v1/{path}")).body(Body::empty());
    let Ok(response) = router.oneshot(request.expect("a request")).await;
    assert!(response.status().is_success(), "{path}: {response:?}");
    let bytes = to_bytes(response.into_body(), 1 << 24).await;
    serde_json::from_slice(&bytes.expect("a body")).expect("JSON")
}

/// Values that no kind of record can be read from.
fn bad_values() -> Vec<(&'static str, Vec<u8>)> {
    let typed = r#"{"format":1,"target":7,"machine":null,"set":3,"units":"x","unit":"y","primary_ip":4,"from":1,"kind":2,"id":5}"#;
    vec![
        ("half", b"{\"format\":1,".to_vec()),
        ("nothing", Vec::new()),
        ("not UTF-8", b"{\"format\":1,\"\xff\xfe\":1}".to_vec()),
        ("wrong types", typed.into()),
        ("no object", b"[1,2,3]".to_vec()),
        (
            "a large number",
            b"{\"format\":99999999999999999999}".to_vec(),
        ),
        ("deep", "[".repeat(100_000).into()),
        (
            "huge",
            format!(r#"{{"format":1,"x":"{}"}}"#, "x".repeat(1 << 20)).into(),
        ),
        ("newer", br#"{"format":2,"what":"ever"}"#.to_vec()),
    ]
}

/// Under every kind of key; see who is hit in the test.
fn kinds(fleet: &Fleet, what: &str) -> Vec<String> {
    let machine = |at: usize| &fleet.machines[at].id;
    let mut keys = vec![
        keys::unit(&unit(BAD)),
        keys::unit(&unit("other.service")),
        keys::history(&unit(WEB), 0),
        keys::grant(machine(1), &unit(BAD)),
        keys::report(machine(2)),
        keys::metadata(machine(3)),
        keys::known(machine(4)),
        keys::machine(machine(5)),
        keys::rollout(&unit(BAD)),
        keys::event(1, 1),
        keys::ACCEPTANCE.to_owned(),
    ];
    if what != "newer" {
        // A newer engine is to go on with these.
        keys.extend([keys::rollout(&unit(WEB)), keys::LEADER.to_owned()]);
    }
    keys
}

/// Keys that fleet never makes.
const ODD: [&str; 12] = [
    "units/../leader",
    "units/",
    "units/x",
    "units/a/b.service",
    "machines/x",
    "machines/",
    "metadata/../x",
    "grants/x/y/z",
    "grants/",
    "history/web.service",
    "rollouts/\u{0}",
    "nobody's",
];

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_costs_its_unit_or_machine_and_is_told() {
    for (what, value) in bad_values() {
        let mut fleet = Fleet::of(7).await;
        let _engine = engine(&fleet.machines[0]);
        let options = "MaxUnavailable=3";
        for name in [WEB, BAD] {
            fleet.launch(name, service(1, options)).await;
        }
        quiet().await;
        fleet.take_logs();
        fleet.submit(WEB, service(2, options), None).await;
        let keys = kinds(&fleet, what);
        for key in keys.iter().cloned().chain(ODD.map(str::to_owned)) {
            fleet.put(key, value.clone()).await;
        }
        fleet.launch("new.service", service(1, "")).await;
        for _ in 0..5 {
            quiet().await;
        }

        // The unit that is hit runs on as it was, and the others are new on every machine that is
        // not hit. Nothing is promoted while the state of a machine is unknown.
        assert_eq!(fleet.record(WEB).await.0.stable.number, 1, "{what}");
        for (at, machine) in fleet.machines.iter().enumerate() {
            let log = machine.take_log();
            let touches = |line: &String| line.contains(BAD) || line.starts_with("stop");
            assert!(!log.iter().any(touches), "{what}: {at}: {log:?}");
            let all = set(&[WEB, BAD, "new.service"]);
            let is_hit = at == 3;
            let expected = if is_hit { set(&[WEB, BAD]) } else { all };
            assert_eq!(machine.running().await, expected, "{what}: {at}");
            let is_new = log.contains(&format!("restart {WEB}"));
            // Of machine 2 it is known again since `new.service` is there: it has written its
            // report again.
            assert_eq!(is_new, ![3, 5].contains(&at), "{what}: {at}: {log:?}");
        }

        let status = ask(&fleet.store, "status").await;
        let problems = status["problems"].as_array().expect("problems");
        let told: BTreeSet<&str> = problems
            .iter()
            .filter_map(|problem| problem["subject"].as_str())
            .collect();
        let elsewhere = [keys::HISTORY, keys::EVENTS];
        for key in &keys {
            let mended = [
                keys::rollout(&unit(WEB)),
                keys::LEADER.to_owned(),
                keys::report(&fleet.machines[2].id),
            ];
            let is_mended = mended.contains(key);
            if !is_mended && !elsewhere.iter().any(|kind| key.starts_with(kind)) {
                assert!(told.contains(key.as_str()), "{what}: {key} in {told:?}");
            }
        }
        for odd in ODD {
            assert!(!told.contains(odd), "{what}: {odd} is nobody's");
        }
        assert_eq!(ask(&fleet.store, "events").await["unreadable"], 1, "{what}");
        for path in ["machines", &format!("rollouts/{WEB}")] {
            let machines = &ask(&fleet.store, path).await["machines"];
            let count = machines.as_array().map(Vec::len);
            assert_eq!(count, Some(7), "{what}: {path} misses nobody");
        }
        let history = ask(&fleet.store, &format!("rollouts/{WEB}/history")).await;
        assert_eq!(history["revisions"][0]["state"], "unreadable", "{what}");

        // Once it is mended, and the machines that are hit say anew how they stand, all are alike.
        let gone = keys.into_iter().map(Write::Delete).collect();
        fleet.store.commit(vec![], gone).await.expect("deleted");
        for machine in &mut fleet.machines {
            machine.kill().await;
            machine.start();
        }
        for _ in 0..5 {
            quiet().await;
        }
        fleet.has_converged().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_which_nobody_knows_how_it_stands_counts_as_down() {
    let stage = ten().await;
    let reports = stage.read::<ReportChanges>(keys::REPORTS).await;
    for key in [
        keys::report(&id(3)),
        keys::report(&id(4)),
        keys::machine(&id(5)),
    ] {
        stage.put_bytes(key, b"{".to_vec()).await;
    }
    // The API has another clock.
    let options = "MaxUnavailable=3\nProgressDeadlineSec=infinity";
    stage.update(WEB, service(2, options)).await;
    sleep(Duration::from_secs(60)).await;
    for number in 0..10 {
        assert_eq!(stage.grant(number, WEB).await, None, "{number}");
    }
    let told = ask(&stage.store, &format!("rollouts/{WEB}")).await;
    let waits = told["waits"].as_str().unwrap_or_else(|| panic!("{told:#}"));
    let named = format!(
        "3 of 10 machines unavailable ({}: what it says cannot be read",
        id(3).short()
    );
    assert!(waits.contains(&named), "{waits}");
    let conditions = told["conditions"].to_string();
    assert!(
        conditions.contains("failed on 3 of 10 machines"),
        "{conditions}"
    );
    // One of them says anew how it stands: there is room for one.
    let report = record::encode(&reports[&keys::report(&id(3))]);
    stage.put_bytes(keys::report(&id(3)), report).await;
    settle().await;
    let granted = stage.read::<Grant>(keys::GRANTS).await;
    assert_eq!(granted.len(), 1, "{granted:?}");
    assert!(
        stage
            .unit(WEB)
            .await
            .candidate
            .is_some_and(|it| it.phase == Phase::Rolling)
    );
}

#[tokio::test(start_paused = true)]
async fn unreadable_unit_with_unknown_past_is_not_stopped() {
    let mut fleet = Fleet::of(1).await;
    for name in ["a.service", "b.service"] {
        fleet.launch(name, service(1, "")).await;
    }
    quiet().await;
    let machine = &mut fleet.machines[0];
    machine.kill().await;
    let file = machine.desired_file();
    std::fs::remove_file(file.with_file_name("seen.json")).expect("removed");
    std::fs::remove_file(file).expect("removed");
    machine.take_log();
    fleet.damage(keys::unit(&unit("a.service"))).await;
    fleet.destroy("b.service").await;
    fleet.machines[0].start();
    quiet().await;
    assert_eq!(fleet.running().await, [set(&["a.service"])]);
    let report = fleet.report(&fleet.machines[0]).await.expect("a report");
    assert!(report.problems.contains_key("units/a.service"));
    // It is followed again as soon as it can be read.
    fleet.destroy("a.service").await;
    quiet().await;
    assert_eq!(fleet.running().await, [set(&[])]);
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn unreadable_id_holds_every_machine_until_restored() {
    let mut fleet = Fleet::of(3).await;
    let _engine = engine(&fleet.machines[0]);
    fleet.launch(WEB, service(1, "")).await;
    quiet().await;
    fleet.take_logs();
    for (_, value) in bad_values() {
        fleet.put(keys::CLUSTER.to_owned(), value).await;
        quiet().await;
        let report = fleet.report(&fleet.machines[1]).await.expect("a report");
        let told = &report.problems["registry"];
        assert!(
            told.contains("cluster id (the key `cluster`) cannot be read"),
            "{told}"
        );
    }
    assert_eq!(fleet.take_logs().concat(), Vec::<String>::new());
    let id = "one".to_owned();
    fleet
        .put(
            keys::CLUSTER.to_owned(),
            record::encode(&ClusterRecord { id }),
        )
        .await;
    quiet().await;
    fleet.has_converged().await;
}
