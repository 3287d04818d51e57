//! One engine leads; when it goes another one does, and what the old one writes is refused.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::trust::{Footing, Memory, Seen, Trust};
use fleetd::engine::{Claim, Engine};
use fleetd::health::Heart;
use fleetd::store::{Embedded, Store, StoreError, Write};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::between::Between;
use super::fleet::cluster;
use super::weather::{Sky, Weather};

struct Running {
    claims: watch::Receiver<Option<Claim>>,
    stop: watch::Sender<bool>,
    weather: Weather,
    task: JoinHandle<()>,
}

impl Running {
    fn start(number: usize, store: &Embedded) -> Self {
        let weather = Weather::over(store.clone());
        let me = MachineId::parse(&format!("{number:032x}")).expect("an id");
        let id = move || format!("{number:032x}");
        let engine = Engine::new(Arc::new(weather.clone()), me, Heart::default(), id);
        let (stop, stopping) = watch::channel(false);
        Self {
            claims: engine.claims(),
            task: tokio::spawn(engine.run(stopping)),
            stop,
            weather,
        }
    }

    fn claim(&self) -> Option<Claim> {
        self.claims.borrow().clone()
    }
}

/// The one engine that leads.
fn leader(engines: &[Running]) -> usize {
    let leading: Vec<usize> = (0..engines.len())
        .filter(|at| engines[*at].claim().is_some())
        .collect();
    assert_eq!(leading.len(), 1, "{leading:?} lead");
    leading[0]
}

async fn write_as(store: &Embedded, claim: &Claim) -> Result<u64, StoreError> {
    let write = Write::Put {
        key: "history/x/1".to_owned(),
        value: Vec::new(),
        lease: None,
    };
    store.commit(vec![claim.guard()], vec![write]).await
}

async fn three() -> (Embedded, Vec<Running>) {
    let store = Embedded::in_memory();
    let engines = (1..4)
        .map(|number| Running::start(number, &store))
        .collect();
    sleep(Duration::from_secs(5)).await;
    (store, engines)
}

#[tokio::test(start_paused = true)]
async fn leader_that_dies_stops_or_is_cut_off_is_replaced() {
    for how in ["dies", "stops", "is cut off", "hears nothing"] {
        let (store, engines) = three().await;
        let old = leader(&engines);
        let claim = engines[old].claim().expect("it leads");
        write_as(&store, &claim).await.expect("the leader writes");
        match how {
            "dies" => engines[old].task.abort(),
            "stops" => {
                engines[old].stop.send_replace(true);
            }
            "is cut off" => engines[old].weather.turn(Sky::Away),
            _ => engines[old].weather.turn(Sky::Silent),
        }
        sleep(Duration::from_secs(5)).await;
        let others: Vec<&Running> = (0..3)
            .filter(|at| *at != old)
            .map(|at| &engines[at])
            .collect();
        let leading = others.iter().filter(|engine| engine.claim().is_some());
        assert_eq!(leading.count(), 1, "the leader {how}");
        let refused = write_as(&store, &claim).await;
        assert!(
            matches!(refused, Err(StoreError::Refused)),
            "the leader {how}: {refused:?}"
        );
        if how != "dies" {
            assert_eq!(engines[old].claim(), None, "the leader {how}");
        }
        engines[old].weather.turn(Sky::Clear);
        sleep(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_gets_its_id_once() {
    let (store, engines) = three().await;
    let id = async || store.list(&[keys::CLUSTER]).await.expect("lists").entries;
    let first = id().await;
    assert_eq!(first.len(), 1);
    engines[leader(&engines)].task.abort();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(id().await, first);
}

/// A registry that lets nobody keep a watch is asked now and then, not all the time.
#[tokio::test(start_paused = true)]
async fn watch_that_always_breaks_is_re_created_with_a_pause() {
    use fleetd::backoff::Backoff;
    use fleetd::mirror;
    let store = Embedded::in_memory();
    let weather = Weather::over(store.clone());
    let mut events = mirror::follow(
        Arc::new(weather.clone()),
        vec![String::new()],
        Backoff::new("x"),
    );
    let breaking = tokio::spawn(async move {
        loop {
            weather.swap(&store);
            sleep(Duration::from_millis(20)).await;
        }
    });
    let mut lists = 0;
    let minute = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(event) = events.recv().await {
            lists += u32::from(matches!(event, mirror::Update::Reset(_)));
        }
    });
    assert!(minute.await.is_err());
    breaking.abort();
    assert!((20..100).contains(&lists), "{lists} lists in a minute");
}

#[tokio::test(start_paused = true)]
async fn damaged_claim_is_removed_and_newer_claim_stays() {
    let copied = format!(r#"{{"format":1,"machine":"{}"}}"#, "e".repeat(32));
    let values = [
        ("{", false),
        ("", false),
        // `etcdctl make-mirror` copies it without its lease.
        (&*copied, false),
        (r#"{"format":2}"#, true),
    ];
    for (value, stays) in values {
        for count in [1, 3] {
            let store = Embedded::in_memory();
            let engines: Vec<Running> = (1..=count)
                .map(|number| Running::start(number, &store))
                .collect();
            sleep(Duration::from_secs(5)).await;
            let old = engines[leader(&engines)].claim().expect("it leads");
            if stays {
                // Its lease is a newer engine's, which leads on.
                engines[leader(&engines)].task.abort();
                sleep(Duration::from_secs(1)).await;
            }
            let write = Write::Put {
                key: keys::LEADER.to_owned(),
                value: value.into(),
                lease: None,
            };
            store.commit(vec![], vec![write]).await.expect("written");
            sleep(Duration::from_secs(10)).await;
            let leading = engines.iter().filter(|engine| engine.claim().is_some());
            if stays {
                let left = store.list(&[keys::LEADER]).await.expect("lists");
                assert_eq!(&*left.entries[keys::LEADER].value, value.as_bytes());
                assert!(leading.count() <= 1);
            } else {
                assert_eq!(leading.count(), 1, "of {count}");
                let refused = write_as(&store, &old).await;
                assert!(matches!(refused, Err(StoreError::Refused)), "{refused:?}");
            }
        }
    }
}

/// Many adoptions, or a mass start: the agent beside a new leader always hears of something newer
/// than the list.
#[tokio::test(start_paused = true)]
async fn a_leader_begins_though_its_agent_hears_of_more_meanwhile() {
    let store = cluster("one").await;
    let made = store.list(&[keys::CLUSTER]).await.expect("lists").entries[keys::CLUSTER].created;
    let memory = move |revision| {
        Memory::Of(Seen {
            cluster: "one".to_owned(),
            made,
            revision,
            instructed: revision,
            restored: false,
            accepted: 0,
        })
    };
    let (trust, followed) = watch::channel(Trust {
        memory: memory(1),
        footing: Footing::Followed,
        away: false,
    });
    let trust = Arc::new(trust);
    let busy = Between::new(&store, move |store| {
        let trust = trust.clone();
        async move {
            let write = Write::Put {
                key: keys::DESTROYED.to_owned(),
                value: Vec::new(),
                lease: None,
            };
            let written = store.commit(Vec::new(), vec![write]).await;
            let memory = memory(written.expect("written"));
            trust.send_modify(|trust| trust.memory = memory);
        }
        .boxed()
    });
    let me = MachineId::parse(&"1".repeat(32)).expect("an id");
    let engine = Engine::new(Arc::new(busy), me, Heart::default(), || "f".repeat(32));
    let (_stop, stopping) = watch::channel(false);
    tokio::spawn(engine.trusting(followed).run(stopping));
    sleep(Duration::from_secs(10)).await;
    let events = store.keys(keys::EVENTS).await.expect("lists");
    assert_eq!(events.len(), 1, "it leads");
}

/// The end of the claim before may be heard after the next one was made.
#[tokio::test(start_paused = true)]
async fn a_claim_outlives_the_late_news_of_the_one_before() {
    let store = Embedded::in_memory();
    let lease = store.create_lease(Duration::from_secs(60)).await;
    let lease = lease.expect("a lease");
    let write = Write::Put {
        key: keys::LEADER.to_owned(),
        value: br#"{"format":1,"machine":"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"}"#.to_vec(),
        lease: Some(lease),
    };
    store
        .commit(Vec::new(), vec![write])
        .await
        .expect("claimed");
    let engine = Running::start(1, &store);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(engine.claim(), None);
    store.revoke(lease).await.expect("it ends");
    sleep(Duration::from_secs(1)).await;
    let claim = engine.claim().expect("it leads");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(engine.claim(), Some(claim));
}
