//! Functions for untrusted bytes, one for each kind. None may panic for any bytes, and each checks
//! a law of its own. They take only bytes; `crates/fleetd/tests/it/bytes/mod.rs` calls them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use fleet_core::daemonset;
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{
    self, AcceptanceRecord, ClusterRecord, Event, Grant, Known, LeaderRecord, MachineRecord,
    MetadataRecord, Past, Progress, ReportBase, ReportChanges, UnitRecord,
};
use fleet_core::trust::{Identity, Memory, judge};
use fleet_core::unit::{Content, Parsed, UnitName};
use fleetd::config::fragment::Fragment;
use fleetd::registry::Registry;
use fleetd::store::{Embedded, Store as _, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

/// A function for one kind of bytes.
pub type Entry = fn(&[u8]);

/// All kinds, by the name of their corpus.
pub const ENTRIES: [(&str, Entry); 7] = [
    ("unit_file", unit_file),
    ("names", names),
    ("fleet_conf", fleet_conf),
    ("api_body", api_body),
    ("registry_value", registry_value),
    ("snapshot_file", snapshot_file),
    ("manifest", manifest),
];

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime")
    })
}

fn web() -> UnitName {
    UnitName::parse("web.service").expect("valid")
}

fn machine() -> MachineId {
    MachineId::parse("190c6f8fbbd25efb88aad49e6c499b79").expect("valid")
}

/// Reads a unit file and checks it: the bytes stay unchanged.
pub fn unit_file(bytes: &[u8]) {
    let content = Content::from(bytes.to_vec());
    assert_eq!(content.as_bytes(), bytes, "bytes in, bytes out");
    for name in ["web.service", "web@1.timer"] {
        let parsed = Parsed::parse(UnitName::parse(name).expect("valid"), &content);
        let _ = (parsed.validate(), parsed.notes());
    }
}

/// Reads a name as a person types it, and a key as another writer wrote it. An accepted one stays
/// below its prefix.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(name) = UnitName::parse(&text) {
        assert!(!name.as_str().contains('/'), "{name}");
        assert!(![".", ".."].contains(&name.as_str()));
        assert_eq!(keys::unit_of(&keys::unit(&name)), Some(name.clone()));
        assert_eq!(keys::rollout_of(&keys::rollout(&name)), Some(name.clone()));
        assert_eq!(
            keys::past_of(&keys::history(&name, 7)),
            Some((name.clone(), 7))
        );
        let granted = keys::grant_of(&keys::grant(&machine(), &name));
        assert_eq!(granted, Some((machine(), name)));
    }
    if let Ok(id) = MachineId::parse(&text) {
        assert!(
            id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(
            keys::machine_of(keys::MACHINES, &keys::machine(&id)),
            Some(id)
        );
    }
    for key in [keys::unit_of(&text), keys::rollout_of(&text)]
        .into_iter()
        .flatten()
    {
        assert!(text.ends_with(key.as_str()));
    }
    let _ = (
        keys::grant_of(&text),
        keys::past_of(&text),
        keys::machine_of(keys::KNOWN, &text),
    );
}

/// Reads a configuration file: every problem is collected.
pub fn fleet_conf(bytes: &[u8]) {
    let fragment = Fragment::from_file(Path::new("/etc/fleet/fleet.conf"), bytes);
    for problem in &fragment.problems {
        assert!(!problem.0.is_empty());
    }
}

/// Sends a body to every resource that accepts one: it responds, and never with 500.
pub fn api_body(bytes: &[u8]) {
    runtime().block_on(async {
        let registry = Registry::new(Arc::new(Embedded::in_memory()));
        let router = fleetd::api::router(registry, 100);
        for (method, path) in [
            ("PUT", "units/web.service".to_owned()),
            ("PATCH", "machines".to_owned()),
            ("POST", format!("machines/{}", machine())),
            ("POST", "plan".to_owned()),
            ("POST", "rollouts/web.service".to_owned()),
            ("POST", "registry".to_owned()),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(format!("/fleet/v1/{path}"))
                .header("Content-Type", "application/json")
                .body(Body::from(bytes.to_vec()));
            let Ok(response) = router.clone().oneshot(request.expect("a request")).await;
            let status = response.status();
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}");
        }
    });
}

/// Reads a value of the registry under every key in turn. It is refused with a reason, or read and
/// written back unchanged. The API responds in either case.
pub fn registry_value(bytes: &[u8]) {
    again::<UnitRecord>(bytes);
    again::<Past>(bytes);
    again::<MachineRecord>(bytes);
    again::<Known>(bytes);
    again::<MetadataRecord>(bytes);
    again::<ReportChanges>(bytes);
    again::<ReportBase>(bytes);
    again::<Grant>(bytes);
    again::<Progress>(bytes);
    again::<Event>(bytes);
    again::<ClusterRecord>(bytes);
    again::<LeaderRecord>(bytes);
    again::<AcceptanceRecord>(bytes);
    let mut sight = Identity::default();
    for key in Identity::KEYS {
        let _ = sight.take(key, Some((bytes, 1, 1)));
    }
    let _ = judge(&Memory::Never, &sight);
    runtime().block_on(everywhere(bytes));
}

fn again<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    match record::decode::<T>(bytes) {
        Ok(value) => {
            let written = record::encode(&value);
            let read = record::decode::<T>(&written).expect("it was just written");
            assert_eq!(record::encode(&read), written);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Writes those bytes under each key, beside a good unit: that unit is still shown.
async fn everywhere(bytes: &[u8]) {
    let store = Arc::new(Embedded::in_memory());
    let router = fleetd::api::router(Registry::new(store.clone()), 100);
    let put = |key: String, value: &[u8]| Write::Put {
        key,
        value: value.to_vec(),
        lease: None,
    };
    let bad = UnitName::parse("bad.service").expect("valid");
    let writes = [
        keys::CLUSTER.to_owned(),
        keys::ACCEPTANCE.to_owned(),
        keys::LEADER.to_owned(),
        keys::unit(&bad),
        keys::history(&bad, 1),
        keys::machine(&machine()),
        keys::known(&machine()),
        keys::metadata(&machine()),
        keys::report(&machine()),
        keys::report_base(&machine()),
        keys::grant(&machine(), &bad),
        keys::rollout(&bad),
        keys::event(1, 1),
    ];
    let mut writes: Vec<Write> = writes.into_iter().map(|key| put(key, bytes)).collect();
    let good = br#"{"format":1,"target":"inactive","stable":{"number":1,"at":1,"content":"[Service]\n"},"owners":["api"]}"#;
    writes.push(put(keys::unit(&web()), good));
    // The registry refuses a value above its size limit.
    if store.commit(vec![], writes).await.is_err() {
        return;
    }
    for (path, is_there) in [
        ("units/web.service", true),
        ("units", true),
        ("machines", true),
        ("state", true),
        ("status", true),
        ("status/web.service", true),
        ("rollouts", true),
        ("events", true),
        ("registry", true),
        ("units/bad.service", false),
        ("status/bad.service", false),
        ("rollouts/bad.service/history", false),
        ("explain/bad.service", false),
    ] {
        let request = Request::get(format!("/fleet/v1/{path}")).body(Body::empty());
        let Ok(response) = router.clone().oneshot(request.expect("a request")).await;
        let status = response.status();
        assert!(!status.is_server_error(), "{path}: {status}");
        assert!(!is_there || status.is_success(), "{path}: {status}");
    }
}

/// Opens the file of the embedded store. It is opened as it was written, or refused and left
/// unchanged.
pub fn snapshot_file(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.json");
    std::fs::write(&path, bytes).expect("written");
    if let Err(error) = Embedded::open(&path) {
        assert!(error.to_string().contains("registry.json"), "{error}");
        assert_eq!(std::fs::read(&path).expect("it is there"), bytes);
    }
}

/// A DaemonSet manifest: refused with its place, or converted to units that fleetd would take.
pub fn manifest(bytes: &[u8]) {
    let conversion = daemonset::convert(bytes, "app.yaml");
    assert_eq!(conversion.is_refused(), conversion.units.is_empty());
    for remark in &conversion.remarks {
        assert!(remark.at.line > 0 && remark.at.column > 0, "{remark}");
        assert!(!remark.text.is_empty());
    }
    for (name, content) in &conversion.units {
        let parsed = Parsed::parse(name.clone(), content);
        assert_eq!(parsed.validate(), Ok(()), "{name}");
        // Whatever the manifest says, it starts podman and nothing else.
        let starts = parsed.file.assignments().iter();
        let starts: Vec<_> = starts.filter(|it| it.key == "ExecStart").collect();
        assert_eq!(starts.len(), 1, "{name}");
        assert!(
            starts[0].value.starts_with("/usr/bin/podman run "),
            "{name}"
        );
    }
}
