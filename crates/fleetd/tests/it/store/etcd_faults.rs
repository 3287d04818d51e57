//! The etcd store while members die, stall and return, and its cost while nothing happens.

use std::cell::Cell;
use std::time::{Duration, Instant};

use fleetd::store::{EtcdConfig, EtcdStore, Guard, Store, StoreError};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::etcd::Etcd;
use super::laws::{list, next, put, watch, write};
use super::{etcd_config, etcd_store};

/// An address without a listener: port 1 is never assigned.
const DEAD: &str = "http://127.0.0.1:1";

fn with_dead_endpoints(etcd: &Etcd, count: usize) -> EtcdStore {
    let mut config = etcd_config(&[etcd]);
    config.endpoints.splice(0..0, vec![DEAD.to_owned(); count]);
    EtcdStore::new(config).expect("valid settings")
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    // The first endpoint is random. With this many stores, at least one begins with the dead
    // endpoint.
    for _ in 0..8 {
        let store = with_dead_endpoints(&etcd, 2);
        store
            .commit(vec![], vec![put("a", "1")])
            .await
            .expect("the live one takes it");
        let store = with_dead_endpoints(&etcd, 2);
        list(&store, &["a"]).await;
        let store = with_dead_endpoints(&etcd, 2);
        let lease = store
            .create_lease(Duration::from_secs(5))
            .await
            .expect("the live one grants it");
        store.renew(lease).await.expect("the live one renews it");
    }
}

#[tokio::test]
async fn error_without_a_live_endpoint_names_each_with_its_cause() {
    let store = EtcdStore::new(EtcdConfig {
        endpoints: vec![DEAD.into(), "http://127.0.0.1:2".into()],
        ..EtcdConfig::default()
    });
    let store = store.expect("nothing is connected yet");
    let error = store
        .list(&[""])
        .await
        .expect_err("no endpoint is alive")
        .to_string();
    for endpoint in [DEAD, "http://127.0.0.1:2"] {
        let part = format!("etcd {endpoint}: tcp connect error: connection refused (os error 111)");
        assert!(error.contains(&part), "{error}");
    }
}

#[tokio::test]
async fn members_killed_under_load_lose_no_acknowledged_commit() {
    let Some(mut members) = Etcd::start_three().await else {
        return;
    };
    let store = etcd_store(&members.each_ref());
    let over = Cell::new(false);
    let writers = (0..4).map(|writer| write_until(&over, &store, writer));
    let killer = async {
        // Each member is killed in turn, so the one that serves the writers is among them.
        for member in &mut members {
            sleep(Duration::from_millis(300)).await;
            member.kill();
            sleep(Duration::from_millis(300)).await;
            member.restart();
            member.healthy().await;
        }
        over.set(true);
    };
    let (mut acknowledged, ()) = tokio::join!(join_all(writers), killer);
    let mut acknowledged: Vec<_> = acknowledged.drain(..).flatten().collect();
    acknowledged.sort();
    println!("{} commits", acknowledged.len());
    let kept: Vec<_> = list(&store, &["a/"]).await.entries.into_keys().collect();
    assert_eq!(kept, acknowledged);
}

/// Writes keys one after the other, each until it is known to be stored.
async fn write_until(over: &Cell<bool>, store: &EtcdStore, writer: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !over.get() {
        let key = format!("a/{writer}/{:06}", acknowledged.len());
        for unanswered in 0.. {
            assert!(unanswered < 20, "it does not come back");
            let guards = vec![Guard::Absent(key.clone())];
            match store.commit(guards, vec![put(&key, "x")]).await {
                Ok(_) => break,
                // The attempt before was applied, and only its answer was lost.
                Err(StoreError::Refused) if unanswered > 0 => break,
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        acknowledged.push(key);
        sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

#[tokio::test]
async fn late_answer_reaches_an_agent_and_fails_a_person_in_time() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let hasty = etcd_store(&[&etcd]);
    let patient = hasty.for_agent();
    list(&hasty, &["a"]).await;
    etcd.pause();
    let (answer, refusal) = tokio::join!(patient.list(&["a"]), async {
        let refusal = hasty.list(&["a"]).await.expect_err("no answer");
        // Half of the other store's time is left.
        sleep(Duration::from_secs(1)).await;
        etcd.resume();
        refusal.to_string()
    });
    answer.expect("late, but an answer");
    assert!(refusal.contains("no answer within 1s"), "{refusal}");
}

/// Each connection costs a busy member more, most of all when thousands of clients replace theirs
/// at once.
#[tokio::test]
async fn late_answers_open_no_new_connection_to_the_only_member() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let store = etcd_store(&[&etcd]);
    let begin = write(&store, [put("a", "1")]).await;
    let mut watch = watch(&store, &["a"], begin).await;
    // One of its own is among them.
    let before = connections_to(&etcd);
    etcd.pause();
    for _ in 0..3 {
        store.list(&["a"]).await.expect_err("no answer");
    }
    etcd.resume();
    write(&store, [put("a", "2")]).await;
    next(&mut watch).await.expect("it was not broken");
    assert_eq!(connections_to(&etcd), before);
}

/// Counts this machine's established connections in the kernel's list: `sl local remote state ...`,
/// in hexadecimal.
fn connections_to(etcd: &Etcd) -> usize {
    let port: u16 = etcd
        .endpoint()
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .expect("a port");
    let port = format!(":{port:04X}");
    let list = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let rows = list.lines().map(|row| row.split_whitespace());
    rows.filter(|row| {
        let remote_and_state: Vec<&str> = row.clone().skip(2).take(2).collect();
        matches!(remote_and_state[..], [remote, "01"] if remote.ends_with(&port))
    })
    .count()
}

#[tokio::test]
async fn stalled_endpoint_ends_its_watch_and_is_replaced() {
    let Some(members) = Etcd::start_three().await else {
        return;
    };
    // It is alone at first, so that the serving member is known.
    let lone = etcd_store(&[&members[0]]);
    let begin = write(&lone, [put("a", "1")]).await;
    let mut stalled = watch(&lone, &["a", "b"], begin).await;
    let store = etcd_store(&members.each_ref());
    members[0].pause();
    let pause = Instant::now();

    // The attempts meet the stall, and an election if the leader stalled.
    while let Err(error) = store.commit(vec![], vec![put("b", "2")]).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(pause.elapsed() < Duration::from_secs(10), "{error}");
    }
    list(&store, &["b"]).await;

    let ended = timeout(Duration::from_secs(15), stalled.next()).await;
    let error = ended.expect("it ends in time").expect_err("no answer");
    println!("a stalled watch ended after {:?}: {error}", pause.elapsed());
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains(members[0].endpoint()), "{error}");

    members[0].resume();
    let mut again = watch(&lone, &["b"], begin).await;
    next(&mut again).await.expect("it goes on where it was");
}

#[tokio::test]
async fn a_stalled_single_endpoint_answers_again_after_it() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let store = EtcdStore::new(EtcdConfig {
        request_timeout: Duration::from_millis(300),
        ..etcd_config(&[&etcd])
    });
    let store = store.expect("valid settings");
    let lease = store
        .create_lease(Duration::from_secs(10))
        .await
        .expect("granted");
    store.renew(lease).await.expect("in time");
    etcd.pause();
    let begin = Instant::now();
    let error = store.list(&[""]).await.expect_err("no answer").to_string();
    assert!(error.contains("no answer within 300ms"), "{error}");
    store.renew(lease).await.expect_err("no answer");
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    etcd.resume();
    store.renew(lease).await.expect("it is back");
    list(&store, &[""]).await;
}

#[tokio::test]
async fn restarted_etcd_continues_with_the_same_data() {
    let Some(mut etcd) = Etcd::start().await else {
        return;
    };
    let store = etcd_store(&[&etcd]);
    let lease = store
        .create_lease(Duration::from_secs(30))
        .await
        .expect("granted");
    store.renew(lease).await.expect("in time");
    let begin = write(&store, [put("a", "1")]).await;
    let mut broken = watch(&store, &["a"], begin).await;
    etcd.restart();
    let error = next(&mut broken).await.expect_err("the member went");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    etcd.healthy().await;
    store.renew(lease).await.expect("leases outlive a restart");
    write(&store, [put("a", "2")]).await;
    let mut watch = watch(&store, &["a"], begin).await;
    let batch = next(&mut watch).await.expect("it goes on where it was");
    assert_eq!(batch.changes.len(), 1);
}

#[tokio::test]
async fn idling_costs_lease_renewals_and_nothing_else() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let store = etcd_store(&[&etcd]);
    let lease = store
        .create_lease(Duration::from_secs(10))
        .await
        .expect("granted");
    store.renew(lease).await.expect("in time");
    let begin = write(&store, [put("a", "1")]).await;
    let mut idle = watch(&store, &["units/", "grants/me/"], begin).await;
    let before = traffic(&etcd).await;
    for _ in 0..3 {
        let quiet = timeout(Duration::from_secs(1), idle.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        store.renew(lease).await.expect("in time");
    }
    let after = traffic(&etcd).await;
    let expected = Traffic {
        received: before.received + 3.0,
        ..before
    };
    assert_eq!(after, expected);
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Traffic {
    proposals: f64,
    requests: f64,
    received: f64,
}

async fn traffic(etcd: &Etcd) -> Traffic {
    // etcd counts a request when it ends, and its own work ends a little later.
    sleep(Duration::from_millis(200)).await;
    Traffic {
        proposals: etcd
            .metric("etcd_server_proposals_committed_total", "")
            .await,
        requests: etcd.metric("grpc_server_started_total", "").await,
        received: etcd.metric("grpc_server_msg_received_total", "").await,
    }
}
