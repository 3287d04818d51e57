//! The endpoints about rollouts, asked through the router on an embedded store where the tests write what machines and
//! leaders write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{
    self, Event, EventKind, Grant, Known, MachineRecord, MachineReport, UnitReport,
};
use fleet_core::rollout::Phase;
use fleet_core::unit::UnitName;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::api::router;
use crate::registry::Registry;
use crate::store::{Embedded, Write};

const WEB: &str = "[Service]\nExecStart=/a\n[X-Fleet]\nGlobal=true\n";

struct World {
    registry: Registry,
}

fn id(digit: char) -> MachineId {
    MachineId::parse(&digit.to_string().repeat(32)).expect("valid")
}

fn web() -> UnitName {
    UnitName::parse("web.service").expect("valid")
}

impl World {
    /// Two live machines and one that is offline; `web.service` is launched, and runs where it can.
    async fn new() -> Self {
        let world = Self {
            registry: Registry::new(Arc::new(Embedded::in_memory())),
        };
        let machine = |session| MachineRecord {
            primary_ip: "10.0.0.1".to_owned(),
            metadata: [("az".to_owned(), "1".to_owned())].into(),
            version: String::new(),
            session,
        };
        for (digit, session) in [('1', 11), ('2', 12)] {
            world
                .write(keys::machine(&id(digit)), &machine(session))
                .await;
            world.reports(digit, 1, true).await;
        }
        let known = Known {
            machine: machine(1),
            offline_since: Some(7),
        };
        world.write(keys::known(&id('3')), &known).await;
        let (status, _) = world.submit(WEB).await;
        assert_eq!(status, StatusCode::CREATED);
        world
    }

    async fn write<T: serde::Serialize>(&self, key: String, value: &T) {
        let value = record::encode(value);
        let write = Write::Put {
            key,
            value,
            lease: None,
        };
        self.registry
            .store()
            .commit(Vec::new(), vec![write])
            .await
            .expect("written");
    }

    /// A machine says that it has that revision.
    async fn reports(&self, digit: char, revision: u64, available: bool) {
        let report = UnitReport {
            active: "active".to_owned(),
            sub: "running".to_owned(),
            revision,
            launched: true,
            ready: true,
            available,
            ..UnitReport::default()
        };
        let report = MachineReport {
            units: BTreeMap::from([(web(), report)]),
            ..MachineReport::default()
        };
        self.write(keys::report(&id(digit)), &report).await;
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let router = router(self.registry.clone(), 100);
        let request = Request::builder()
            .method(method)
            .uri(format!("/fleet/v1/{path}"))
            .header("Content-Type", "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())));
        let response = router
            .oneshot(request.expect("a request"))
            .await
            .expect("an answer");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn submit(&self, content: &str) -> (StatusCode, Value) {
        use base64::Engine as _;
        let content = base64::engine::general_purpose::STANDARD.encode(content);
        let body = json!({"content": content, "desiredState": "launched"});
        self.ask(Method::PUT, "units/web.service", Some(body)).await
    }

    async fn order(&self, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, "rollouts/web.service", Some(body))
            .await
    }

    /// `status: message` of a refusal.
    async fn refusal(&self, body: Value) -> String {
        let (status, body) = self.order(body).await;
        let message = body["error"]["message"].as_str().unwrap_or("");
        format!("{}: {message}", status.as_u16())
    }
}

fn update() -> String {
    WEB.replace("/a", "/b")
}

#[tokio::test]
async fn an_update_shows_as_a_rollout_and_its_history_has_all_revisions() {
    let world = World::new().await;
    let row = &world.get("rollouts").await["rollouts"][0];
    assert_eq!(
        (&row["phase"], &row["candidate"]),
        (&json!("stable"), &Value::Null)
    );
    assert_eq!(
        (&row["desired"], &row["available"], &row["deferred"]),
        (&json!(2), &json!(2), &json!(1))
    );
    world.submit(&update()).await;
    let status = world.get("rollouts/web.service").await;
    assert_eq!(
        (&status["phase"], &status["candidate"]),
        (&json!("rolling"), &json!(2))
    );
    assert_eq!(
        (&status["upToDate"], &status["desired"]),
        (&json!(0), &json!(2))
    );
    let third = &status["machines"][2];
    assert_eq!(
        (&third["live"], &third["offlineSince"], &third["wanted"]),
        (&json!(false), &json!(7), &json!(2))
    );
    let history = world.get("rollouts/web.service/history").await;
    let states: Vec<&Value> = history["revisions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|revision| &revision["state"])
        .collect();
    assert_eq!(states, [&json!("stable"), &json!("candidate")]);
    // Who asks for the unit is given the newest content, and a revision by number its own.
    let newest = world.get("units/web.service?content=true").await["content"].clone();
    assert_eq!(
        newest,
        world.get("rollouts/web.service/history/2").await["content"]
    );
    assert_ne!(
        newest,
        world.get("rollouts/web.service/history/1").await["content"]
    );
    let (status, body) = world
        .ask(Method::GET, "rollouts/web.service/history/9", None)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        body["error"]["message"],
        "unit web.service has no revision 9; there are 1, 2"
    );
}

#[tokio::test]
async fn the_status_of_a_unit_names_the_candidate() {
    let world = World::new().await;
    let before = world.get("status/web.service").await;
    assert_eq!(before["candidate"], Value::Null);
    world.submit(&update()).await;
    let status = world.get("status/web.service").await;
    assert_eq!(
        (&status["revision"], &status["candidate"]["revision"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(status["hash"], before["hash"]);
    assert_ne!(status["candidate"]["hash"], before["hash"]);
}

#[tokio::test]
async fn orders_are_followed_or_refused_with_what_stands() {
    let world = World::new().await;
    insta::assert_snapshot!(
        world.refusal(json!({"action": "undo"})).await,
        @"409: unit web.service has no revision before 1 to go back to; its history is empty"
    );
    world.submit(&update()).await;
    let (status, paused) = world.order(json!({"action": "pause"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&paused["phase"], &paused["reason"]),
        (&json!("paused"), &json!("paused by the API"))
    );
    let (_, rolling) = world.order(json!({"action": "resume"})).await;
    assert_eq!(rolling["phase"], "rolling");
    let (_, restarted) = world.order(json!({"action": "restart"})).await;
    assert_eq!(restarted["candidate"], 3);
    let (_, back) = world.order(json!({"action": "undo"})).await;
    assert_eq!(back["phase"], "rolling-back");
    let (_, other) = world.order(json!({"action": "undo", "to": 2})).await;
    assert_eq!(
        (&other["candidate"], &other["phase"]),
        (&json!(4), &json!("rolling"))
    );
    insta::assert_snapshot!(
        world.refusal(json!({"action": "undo", "to": 9})).await,
        @"409: unit web.service has no revision 9 to go back to; its history has 2, 3 (rolled back)"
    );
    insta::assert_snapshot!(
        world.refusal(json!({"action": "pause", "to": 9})).await,
        @r#"400: "to" goes with the action undo only"#
    );
    assert!(
        world
            .refusal(json!({"action": "stop"}))
            .await
            .starts_with("400: unable to decode body")
    );
    let nothing = world.ask(
        Method::POST,
        "rollouts/no.service",
        Some(json!({"action": "pause"})),
    );
    assert_eq!(nothing.await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_grant_shows_only_while_it_holds() {
    let world = World::new().await;
    world.submit(&update()).await;
    let created = world
        .registry
        .unit(&web())
        .await
        .expect("read")
        .expect("there")
        .created;
    for (digit, session) in [('1', 11), ('2', 99)] {
        let grant = Grant {
            unit: created,
            revision: 2,
            session,
            was_available: true,
            proved: false,
        };
        world.write(keys::grant(&id(digit), &web()), &grant).await;
    }
    let machines = world.get("rollouts/web.service").await["machines"].clone();
    assert_eq!(
        (&machines[0]["granted"], &machines[1]["granted"]),
        (&json!(2), &Value::Null)
    );
}

#[tokio::test]
async fn a_machine_is_cordoned_and_uncordoned_and_keeps_its_metadata() {
    let world = World::new().await;
    let set = [(id('1'), "disk".to_owned(), Some("ssd".to_owned()))];
    world.registry.set_metadata(&set).await.expect("set");
    let path = format!("machines/{}", id('1'));
    for (scheduling, shown) in [("cordoned", json!("cordoned")), ("normal", Value::Null)] {
        let body = json!({"scheduling": scheduling});
        let (status, _) = world.ask(Method::POST, &path, Some(body)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        let machine = world.get("machines").await["machines"][0].clone();
        assert_eq!(
            (&machine["scheduling"], &machine["metadata"]["disk"]),
            (&shown, &json!("ssd"))
        );
    }
    // One that is offline is known; one that never was is not.
    let body = || Some(json!({"scheduling": "drained"}));
    let offline = format!("machines/{}", id('3'));
    assert_eq!(
        world.ask(Method::POST, &offline, body()).await.0,
        StatusCode::NO_CONTENT
    );
    let typo = format!("machines/{}2", "1".repeat(31));
    let (status, answer) = world.ask(Method::POST, &typo, body()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    insta::assert_snapshot!(
        answer["error"]["message"].as_str().unwrap_or(""),
        @"machine 11111111111111111111111111111112 is not known; did you mean 11111111111111111111111111111111?"
    );
    let unlike = format!("machines/{}", "e".repeat(32));
    let (_, answer) = world.ask(Method::POST, &unlike, body()).await;
    insta::assert_snapshot!(
        answer["error"]["message"].as_str().unwrap_or(""),
        @"machine eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee is not known; fleetctl list-machines shows those that are"
    );
}

#[tokio::test]
async fn a_drained_machine_is_no_place_for_a_unit() {
    let world = World::new().await;
    let path = format!("machines/{}", id('1'));
    world
        .ask(Method::POST, &path, Some(json!({"scheduling": "drained"})))
        .await;
    let machine = world.get("status/web.service").await["machines"][0].clone();
    assert_eq!(machine["placed"], json!(false));
    assert_eq!(
        machine["reason"],
        "the machine is drained, and nothing runs there"
    );
}

#[tokio::test]
async fn a_plan_changes_nothing_and_tells_all() {
    use base64::Engine as _;
    let world = World::new().await;
    let content = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let units = json!({"units": [
        {"name": "web.service", "content": content(&update())},
        {"name": "new.service", "content": content(&format!("{WEB}Conflicts=web*\n"))},
        {"name": "bad.service", "content": content("[Service")},
        {"name": "one.service", "options": [{"section": "Service", "name": "ExecStart", "value": "/a"}]},
    ]});
    let revision = world.get("rollouts").await["registryRevision"].clone();
    let (status, plan) = world.ask(Method::POST, "plan", Some(units)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.get("rollouts").await["registryRevision"], revision);
    let lines: String = plan["units"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|unit| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let machines = unit["machines"].as_array().expect("a list").iter();
            let machines: String = machines
                .map(|it| format!("  {}: {}\n", text(&it["action"]), text(&it["reason"])))
                .collect();
            let error = text(&unit["error"]);
            format!(
                "{} {} {}\n{machines}",
                text(&unit["name"]),
                text(&unit["action"]),
                error
            )
        })
        .collect();
    insta::assert_snapshot!(lines, @r"
    web.service update -
      restart: [Service] ExecStart= differs
      restart: [Service] ExecStart= differs
      deferred: the machine is offline since 1970-01-01 00:00:00 UTC
    new.service create -
      not-matched: it conflicts with web.service, which was created first
      not-matched: it conflicts with web.service, which was created first
      not-matched: it conflicts with web.service, which was created first
    bad.service - unable to find end of section (line 1)
    one.service - unit one.service is not global, and this version does not schedule such units to a machine: it can be submitted, shown and destroyed; with Global=true in its [X-Fleet] section it runs on every matching machine
    ");
    assert_eq!(plan["units"][0]["batches"]["count"], 2);
}

#[tokio::test]
async fn an_explanation_is_of_every_machine_or_of_one() {
    let world = World::new().await;
    world.submit(&update()).await;
    let all = world.get("explain/web.service").await;
    let verdicts: Vec<&str> = all["machines"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["verdict"].as_str())
        .collect();
    assert_eq!(
        verdicts,
        [
            "web.service runs on 11111111, revision 1",
            "web.service runs on 22222222, revision 1",
            "web.service does not run on 33333333: the machine is offline since 1970-01-01 00:00:00 UTC, \
         and what runs there is not known",
        ]
    );
    let one = world
        .get(&format!("explain/web.service?machineID={}", id('2')))
        .await;
    assert_eq!(one["machines"].as_array().map(Vec::len), Some(1));
    let nobody = format!("explain/web.service?machineID={}", id('9'));
    assert_eq!(
        world.ask(Method::GET, &nobody, None).await.0,
        StatusCode::NOT_FOUND
    );
    let no_unit = world.get("explain/no.service").await;
    assert_eq!(
        no_unit["machines"][0]["predicates"][0]["holds"],
        json!(false)
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_events_misses_none_and_is_not_told_of_other_units() {
    let world = World::new().await;
    let event = |count, name: &str| {
        let event = Event {
            at: 1,
            kind: EventKind::Granted,
            unit: UnitName::parse(name).ok(),
            revision: 2,
            machines: vec![id('1')],
            reason: "it is its turn".to_owned(),
        };
        (keys::event(1, count), event)
    };
    let (key, first) = event(1, "web.service");
    world.write(key, &first).await;
    let all = world.get("events?unit=web.service").await;
    assert_eq!(all["events"][0]["kind"], "granted");
    let after = all["nextAfter"].as_u64().expect("a number");
    let path = format!("events?unit=web.service&after={after}");
    let asked = world.get(&path);
    let happens = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (key, event) in [event(2, "other.service"), event(3, "web.service")] {
            world.write(key, &event).await;
        }
    };
    let (answer, ()) = tokio::join!(asked, happens);
    assert_eq!(answer["events"].as_array().map(Vec::len), Some(1));
    let after = answer["nextAfter"].as_u64().expect("a number");
    let began = tokio::time::Instant::now();
    let none = world.get(&format!("events?after={after}")).await;
    assert_eq!(none["events"], json!([]));
    assert!(began.elapsed() >= Duration::from_secs(29));
    // A registry that was restored has not come that far: whoever asks is told where it stands.
    let restored = world.get("events?after=100000").await;
    assert_eq!(restored["nextAfter"], none["nextAfter"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_rollout_is_told_of_its_change() {
    let world = World::new().await;
    let revision = world.get("rollouts/web.service").await["registryRevision"].clone();
    let path = format!("rollouts/web.service?after={revision}");
    let happens = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.submit(&update()).await;
    };
    let (answer, ()) = tokio::join!(world.get(&path), happens);
    assert_eq!(answer["phase"], Phase::Rolling.as_str());
}

#[tokio::test]
async fn update_of_an_old_revision_is_refused_with_412() {
    let world = World::new().await;
    let put = async |path: &str, tag: Option<&str>, content: String| {
        use base64::Engine as _;
        let content = base64::engine::general_purpose::STANDARD.encode(content);
        let body = json!({"content": content, "desiredState": "launched"});
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(format!("/fleet/v1/units/{path}"))
            .header("Content-Type", "application/json");
        if let Some(tag) = tag {
            request = request.header("If-Match", tag);
        }
        let request = request.body(Body::from(body.to_string()));
        let router = router(world.registry.clone(), 100);
        let answer = router.oneshot(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let message = body["error"]["message"].as_str().unwrap_or_default();
        (status, message.to_owned())
    };
    let unit = "web.service";
    assert_eq!(
        world.get("units/web.service?content=true").await["revision"],
        json!(1)
    );
    assert_eq!(put(unit, Some("\"1\""), update()).await.0, 204);
    let (status, message) = put(unit, Some("\"1\""), WEB.replace("/a", "/c")).await;
    assert_eq!(status, 412);
    assert!(
        message.contains("replaces revision 1, but revision 2 is the newest"),
        "{message}"
    );
    assert_eq!(
        world.get("units/web.service?content=true").await["revision"],
        json!(2)
    );
    for tag in [Some("2"), Some("*"), None] {
        let content = WEB.replace("/a", &format!("/{}", tag.unwrap_or("none")));
        assert_eq!(put(unit, tag, content).await.0, 204, "{tag:?}");
    }
    assert_eq!(put(unit, Some("x"), update()).await.0, 400);
    let (status, message) = put("new.service", Some("\"1\""), update()).await;
    assert_eq!(status, 412);
    assert!(message.contains("the unit was destroyed"), "{message}");
}
