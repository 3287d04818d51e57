//! What the etcd store does when members die, stall and come back, and what it costs when nothing happens.

use std::cell::Cell;
use std::time::{Duration, Instant};

use fleetd::store::{EtcdConfig, EtcdStore, Guard, Store, StoreError};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::etcd::Etcd;
use super::laws::{list, next, put, watch, write};
use super::{etcd_config, etcd_store};

/// Nobody listens there: port 1 is not given out.
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
    // The first to be asked is drawn by lot, so that one of these begins with the dead one for certain.
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
async fn with_no_endpoint_alive_each_is_named_with_its_cause() {
    let store = EtcdStore::new(EtcdConfig {
        endpoints: vec![DEAD.into(), "http://127.0.0.1:2".into()],
        ..EtcdConfig::default()
    });
    let store = store.expect("nothing is connected yet");
    let error = store
        .list(&[""])
        .await
        .expect_err("nobody is there")
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
        // Each in turn, so that the one that serves the writers is among them.
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

/// Writes keys one after the other, each until it is known to be there.
async fn write_until(over: &Cell<bool>, store: &EtcdStore, writer: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !over.get() {
        let key = format!("a/{writer}/{:06}", acknowledged.len());
        for unanswered in 0.. {
            assert!(unanswered < 20, "it does not come back");
            let guards = vec![Guard::Absent(key.clone())];
            match store.commit(guards, vec![put(&key, "x")]).await {
                Ok(_) => break,
                // It was applied by the try before, whose answer was lost.
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
async fn who_has_time_gets_an_answer_that_is_late_and_who_has_none_is_told_so_at_once() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let hasty = etcd_store(&[&etcd]);
    let patient = hasty.for_agent();
    list(&hasty, &["a"]).await;
    etcd.pause();
    let (answer, refusal) = tokio::join!(patient.list(&["a"]), async {
        let refusal = hasty.list(&["a"]).await.expect_err("nobody answers");
        // Half of the time that the other one has is left.
        sleep(Duration::from_secs(1)).await;
        etcd.resume();
        refusal.to_string()
    });
    answer.expect("late, but an answer");
    assert!(refusal.contains("no answer within 1s"), "{refusal}");
}

/// Each connection costs a busy member more, and most of all where thousands give theirs up at once.
#[tokio::test]
async fn answers_that_are_late_cost_the_only_member_no_other_connection() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let store = etcd_store(&[&etcd]);
    let begin = write(&store, [put("a", "1")]).await;
    let mut watch = watch(&store, &["a"], begin).await;
    // Among them one of its own.
    let before = connections_to(&etcd);
    etcd.pause();
    for _ in 0..3 {
        store.list(&["a"]).await.expect_err("nobody answers");
    }
    etcd.resume();
    write(&store, [put("a", "2")]).await;
    next(&mut watch).await.expect("it was not broken");
    assert_eq!(connections_to(&etcd), before);
}

/// Of this machine, established, as the kernel lists them: `sl local remote state ...`, in hexadecimal.
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
async fn a_stalled_endpoint_ends_its_watch_and_is_left_for_another() {
    let Some(members) = Etcd::start_three().await else {
        return;
    };
    // Alone at first, so that it is known which member serves.
    let lone = etcd_store(&[&members[0]]);
    let begin = write(&lone, [put("a", "1")]).await;
    let mut stalled = watch(&lone, &["a", "b"], begin).await;
    let store = etcd_store(&members.each_ref());
    members[0].pause();
    let pause = Instant::now();

    // Tries meet the stall, and the election of another leader if that one stalled.
    while let Err(error) = store.commit(vec![], vec![put("b", "2")]).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(pause.elapsed() < Duration::from_secs(10), "{error}");
    }
    list(&store, &["b"]).await;

    let ended = timeout(Duration::from_secs(15), stalled.next()).await;
    let error = ended.expect("it ends in time").expect_err("nobody answers");
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
    let error = store
        .list(&[""])
        .await
        .expect_err("nobody answers")
        .to_string();
    assert!(error.contains("no answer within 300ms"), "{error}");
    store.renew(lease).await.expect_err("nobody answers");
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
async fn after_a_restart_everything_goes_on_from_the_same_data() {
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
    // etcd counts a request when it has ended, and its own work trails a little.
    sleep(Duration::from_millis(200)).await;
    Traffic {
        proposals: etcd
            .metric("etcd_server_proposals_committed_total", "")
            .await,
        requests: etcd.metric("grpc_server_started_total", "").await,
        received: etcd.metric("grpc_server_msg_received_total", "").await,
    }
}
