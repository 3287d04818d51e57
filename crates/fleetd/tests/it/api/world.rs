//! Three machines in an embedded store, behind the real router. They are those on which fleet 1.0
//! was recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, SERVER};
use axum::http::{HeaderMap, Request, StatusCode};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, MachineRecord, MachineReport, UnitReport};
use fleet_core::unit::UnitName;
use fleetd::api::router;
use fleetd::registry::Registry;
use fleetd::store::{Embedded, Store as _, Write};
use tower::ServiceExt as _;

const MACHINES: [(&str, &str); 3] = [
    ("n1", "631e82f9bbd25efb88aad49e6c499b79"),
    ("n2", "6650bd8acb14499365bce5a3533bd6c5"),
    ("n3", "3f3fab35461707ed4699d4df0c87385e"),
];

pub(crate) struct World {
    store: Arc<Embedded>,
    router: Router,
}

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let store = Arc::new(Embedded::in_memory());
        let world = Self {
            router: router(Registry::new(store.clone()), 100),
            store,
        };
        for (index, (host, id)) in MACHINES.iter().enumerate() {
            let machine = MachineRecord {
                primary_ip: format!("10.99.1.{}", index + 1),
                metadata: BTreeMap::from([("host".to_owned(), (*host).to_owned())]),
                version: "1".to_owned(),
                session: 0,
            };
            let key = keys::machine(&MachineId::parse(id).expect("an id"));
            world.put(key, record::encode(&machine)).await;
        }
        world
    }

    /// Reports from every machine that it runs this unit.
    pub(crate) async fn report_running(&self, unit: &str, hash: &str) {
        let running = UnitReport {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            sub: "running".to_owned(),
            revision: 1,
            hash: hash.to_owned(),
            result: "success".to_owned(),
            launched: true,
            ready: true,
            available: true,
            ..UnitReport::default()
        };
        let report = MachineReport {
            units: BTreeMap::from([(UnitName::parse(unit).expect("a name"), running)]),
            ..MachineReport::default()
        };
        for (_, id) in MACHINES {
            let key = keys::report(&MachineId::parse(id).expect("an id"));
            self.put(key, record::encode(&report)).await;
        }
    }

    async fn put(&self, key: String, value: Vec<u8>) {
        let write = Write::Put {
            key,
            value,
            lease: None,
        };
        self.store
            .commit(vec![], vec![write])
            .await
            .expect("stored");
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let server = parts.headers.get(SERVER).expect("a Server header");
        assert!(server.as_bytes().starts_with(b"fleetd/v"), "{server:?}");
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).expect("text"),
        }
    }
}
