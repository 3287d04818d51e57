//! fleet with an etcd that has no room, holds more than a message takes, or was copied without its
//! leases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client};
use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata};
use fleet_core::record::{self, ClusterRecord, LeaderRecord, MachineRecord, ReportChanges};
use fleetd::agent::{Agent, Config};
use fleetd::engine::Engine;
use fleetd::health::Heart;
use fleetd::store::{Store, StoreError, Write};
use fleetd::systemd::fake::Fake;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::etcd::Etcd;
use super::etcd_store;
use super::laws::{get, put, write};

const TTL: Duration = Duration::from_secs(5);

fn me() -> MachineId {
    MachineId::parse(&"a".repeat(32)).expect("valid")
}

async fn eventually<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(it) = holds().await {
            return it;
        }
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_machine_stays_visible_while_etcd_has_no_room() {
    let Some(etcd) = Etcd::start_with(&["--quota-backend-bytes=16777216"]).await else {
        return;
    };
    let store = etcd_store(&[&etcd]);
    let id = "one".to_owned();
    let cluster = String::from_utf8(record::encode(&ClusterRecord { id })).expect("text");
    write(&store, [put(keys::CLUSTER, &cluster)]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let presence = MachineRecord {
        primary_ip: String::new(),
        metadata: Metadata::new(),
        version: String::new(),
        session: 0,
    };
    let config = Config {
        me: me(),
        presence: watch::channel(presence).1,
        ttl: TTL,
        desired_file: folder.path().join("desired.json"),
        marks_file: None,
    };
    let agent = Agent::new(
        config,
        Arc::new(store.for_agent()),
        Arc::new(Fake::new()),
        Heart::default(),
    );
    let (problems, directory) = watch::channel(BTreeMap::new());
    let running = tokio::spawn(agent.run(directory));
    let presence = keys::machine(&me());
    let before = eventually("it is there", async || get(&store, &presence).await).await;

    let large = "x".repeat(1 << 20);
    let mut number = 0;
    let refused = loop {
        let filler = vec![put(&format!("filler/{number}"), &large)];
        match store.commit(Vec::new(), filler).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Rejected(_)), "{refused}");
    let problem = BTreeMap::from([("here".to_owned(), "something is wrong".to_owned())]);
    problems.send_replace(problem.clone());
    sleep(TTL * 2).await;
    // The session is the same, so every grant to it still counts.
    assert_eq!(get(&store, &presence).await, Some(before.clone()));

    let mut client = Client::connect([etcd.endpoint()], None)
        .await
        .expect("it runs");
    let mut revision = 0;
    for filler in 0..number {
        let gone = Write::Delete(format!("filler/{filler}"));
        let deleted = store.commit(Vec::new(), vec![gone]).await;
        revision = deleted.expect("deleting takes no room");
    }
    let revision = i64::try_from(revision).expect("small");
    client.compact(revision, None).await.expect("compacted");
    client.defragment().await.expect("smaller");
    let alarms = client.alarm(AlarmAction::Get, AlarmType::Nospace, None);
    for alarm in alarms.await.expect("told").alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(alarm.member_id());
        let disarmed = client.alarm(AlarmAction::Deactivate, alarm.alarm(), Some(member));
        disarmed.await.expect("disarmed");
    }
    let report = keys::report(&me());
    eventually("it is reported", async || {
        let report = get(&store, &report).await?;
        let report = record::decode::<ReportChanges>(&report.value).ok()?;
        (report.problems.get("here") == problem.get("here")).then_some(())
    })
    .await;
    assert_eq!(get(&store, &presence).await, Some(before));
    running.abort();
}

#[tokio::test]
async fn a_claim_without_a_lease_is_taken_over() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let store = etcd_store(&[&etcd]);
    let machine = MachineId::parse(&"e".repeat(32)).expect("valid");
    let copied = String::from_utf8(record::encode(&LeaderRecord { machine })).expect("text");
    write(&store, [put(keys::LEADER, &copied)]).await;
    let entry = get(&store, keys::LEADER).await.expect("it is there");
    assert_eq!(entry.lease, None);
    let engine = Engine::new(Arc::new(store.for_engine()), me(), Heart::default(), || {
        "f".repeat(32)
    });
    let mut claims = engine.claims();
    let (_stop, stopping) = watch::channel(false);
    let running = tokio::spawn(engine.run(stopping));
    let claimed = tokio::time::timeout(TTL, claims.wait_for(Option::is_some));
    claimed.await.expect("in time").expect("it leads");
    let entry = get(&store, keys::LEADER).await.expect("it is there");
    assert!(entry.lease.is_some());
    running.abort();
}

#[tokio::test]
async fn keys_and_lists_of_large_values_take_no_large_message() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    const COUNT: usize = 190;
    let store = etcd_store(&[&etcd]);
    let patient = store.for_agent();
    // More than the largest message that is read.
    let large = "x".repeat(1_450_000);
    for number in 0..COUNT {
        let large = vec![put(&format!("history/{number:03}"), &large)];
        let written = patient.commit(Vec::new(), large).await;
        written.expect("late, on a busy disk, but written");
    }
    const SENT: &str = "etcd_network_client_grpc_sent_bytes_total";
    let before = etcd.metric(SENT, "").await;
    assert_eq!(patient.keys("history/").await.expect("keys").len(), COUNT);
    let sent = etcd.metric(SENT, "").await - before;
    assert!(sent < 100_000.0, "{sent} bytes for {COUNT} keys");
    let listed = patient.list(&["history/"]).await;
    let listed = listed.expect("in several messages");
    assert_eq!(listed.entries.len(), COUNT);
}
