//! The endpoints about rollouts, called through the router on an embedded store. The tests write
//! what machines and leaders would write.

mod orders;
mod reasons;
mod waiting;

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
    /// Returns two live machines and an offline one. `web.service` is launched, and runs where it
    /// can.
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

    /// Reports that revision for a machine.
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

    /// Returns `status: message` of a refusal.
    async fn refusal(&self, body: Value) -> String {
        let (status, body) = self.order(body).await;
        let message = body["error"]["message"].as_str().unwrap_or("");
        format!("{}: {message}", status.as_u16())
    }
}

fn update() -> String {
    WEB.replace("/a", "/b")
}
