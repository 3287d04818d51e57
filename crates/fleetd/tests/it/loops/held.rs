//! A registry that is held: nobody on such a machine leads in it, names it or publishes to it,
//! until it is accepted for the whole fleet.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::{MachineId, Scheduling};
use fleet_core::record::{self, AcceptanceRecord, ClusterRecord, Owner};
use fleet_core::trust::Footing;
use fleet_core::unit::{TargetState, UnitName};
use fleetd::engine::Engine;
use fleetd::health::Heart;
use fleetd::registry::AsOwner;
use fleetd::registry::{Registry, RegistryError};
use fleetd::store::{Embedded, Store as _, Write};
use fleetd::systemd::fake::Behaviour;
use fleetd::units_dir::{PublishError, Publisher as _};
use tokio::sync::watch;
use tokio::time::sleep;

use super::fleet::{Fleet, Machine, cluster, quiet, service, set, unit};

const A: &str = "a.service";

/// An engine beside that machine's agent, until the answer is dropped.
pub(crate) fn engine(machine: &Machine) -> watch::Sender<bool> {
    let store = Arc::new(machine.weather.clone());
    let id = machine.id.clone();
    let engine = Engine::new(store, id, Heart::default(), || "f".repeat(32));
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(engine.trusting(machine.trust()).run(stopping));
    stop
}

/// The registry as that machine's API and units directory change it.
fn hand(machine: &Machine) -> Registry {
    Registry::new(Arc::new(machine.weather.clone())).trusting(machine.trust())
}

/// A fleet in which `a.service` runs on three machines, each with an engine.
async fn settled() -> (Fleet, Vec<watch::Sender<bool>>) {
    let fleet = Fleet::of(3).await;
    let engines = fleet.machines.iter().map(engine).collect();
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    fleet.take_logs();
    (fleet, engines)
}

fn turn_to(fleet: &Fleet, other: &Embedded) {
    for machine in &fleet.machines {
        machine.weather.swap(other);
    }
}

async fn keys_of(store: &Embedded) -> Vec<String> {
    let all = store.list(&[""]).await.expect("lists");
    let lasting = |key: &String| {
        ![keys::MACHINES, keys::REPORTS, keys::KNOWN]
            .iter()
            .any(|prefix| key.starts_with(prefix))
    };
    all.entries.into_keys().filter(lasting).collect()
}

async fn is_held(fleet: &Fleet) {
    are_held(fleet, fleet.machines.len()).await;
}

/// The first so many machines: one that is off says what it said last.
async fn are_held(fleet: &Fleet, count: usize) {
    for machine in &fleet.machines[..count] {
        let footing = machine.trust().borrow().footing.clone();
        assert!(matches!(footing, Footing::Held(_)), "{footing:?}");
    }
    assert_eq!(fleet.take_logs().concat(), Vec::<String>::new());
}

/// Whatever wants to change something on that machine is told why it may not.
async fn refuses(machine: &Machine) {
    let registry = hand(machine);
    let name = unit("new.service");
    let submitted = registry.submit(
        &name,
        service(1, ""),
        Owner::Api,
        Some(TargetState::Launched),
    );
    let error = submitted.await.expect_err("it is held");
    assert!(matches!(error, RegistryError::Held(_)), "{error}");
    assert!(error.to_string().contains("keeping what runs"), "{error}");
    let directory = AsOwner {
        registry,
        machine: machine.id.clone(),
    };
    let target = TargetState::Launched;
    for refused in [
        directory.publish(&name, &service(1, ""), target).await,
        directory.adopt(&name, None).await.map(drop),
        // Else it would forget that it published this one.
        directory.disown(&unit(A)).await,
        directory.known(std::slice::from_ref(&name)).await.map(drop),
    ] {
        let error = refused.expect_err("it is held");
        assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
    }
}

async fn put(store: &Embedded, key: &str, value: Vec<u8>) {
    let write = Write::Put {
        key: key.to_owned(),
        value,
        lease: None,
    };
    store.commit(vec![], vec![write]).await.expect("written");
}

#[tokio::test(start_paused = true)]
async fn wiped_registry_stays_without_leader_until_accepted() {
    let (mut fleet, engines) = settled().await;
    let other = Embedded::in_memory();
    // It comes back when all is over. Its engine is of the same process.
    engines[2].send_replace(true);
    fleet.machines[2].kill().await;
    turn_to(&fleet, &other);
    quiet().await;
    are_held(&fleet, 2).await;
    assert_eq!(keys_of(&other).await, Vec::<String>::new());
    for machine in &fleet.machines[..2] {
        refuses(machine).await;
    }
    // An agent that starts anew has not forgotten, nor has its engine.
    fleet.machines[0].kill().await;
    fleet.machines[0].start();
    let _engine = engine(&fleet.machines[0]);
    quiet().await;
    are_held(&fleet, 2).await;
    let trust = fleet.machines[0].trust().borrow().clone();
    let held = trust.held().expect("it is held").clone();
    assert_eq!((held.stops, held.starts), (vec![unit(A)], vec![]));

    let id = "e".repeat(32);
    let accepting = hand(&fleet.machines[1]);
    let changed = accepting.accept("somebody's", "a test", &id).await;
    assert!(matches!(changed, Err(RegistryError::NotAcceptable(_))));
    accepting.accept("", "a test", &id).await.expect("accepted");
    quiet().await;
    fleet.machines[2].start();
    quiet().await;
    let nothing = set(&[]);
    assert!(fleet.running().await.iter().all(|up| *up == nothing));
    assert!(keys_of(&other).await.contains(&keys::LEADER.to_owned()));
    let again = accepting.accept(&id, "a test", "unused").await;
    assert!(matches!(again, Err(RegistryError::NotAcceptable(_))));

    let name = unit("b.service");
    let submitted = accepting.submit(
        &name,
        service(1, ""),
        Owner::Api,
        Some(TargetState::Launched),
    );
    submitted.await.expect("followed");
    quiet().await;
    let b = set(&["b.service"]);
    assert!(fleet.running().await.iter().all(|up| *up == b));

    // The one before is another's by now, for all of them.
    fleet.take_logs();
    turn_to(&fleet, &fleet.store);
    quiet().await;
    is_held(&fleet).await;
    assert!(fleet.running().await.iter().all(|up| *up == b));
}

/// The unit's key is made anew there, and its one revision has the number of another one.
#[tokio::test(start_paused = true)]
async fn accepted_registry_is_reached_within_the_budget() {
    let (fleet, _engines) = settled().await;
    let (mut record, _) = fleet.record(A).await;
    let all = vec![Write::DeletePrefix(String::new())];
    fleet.store.commit(vec![], all).await.expect("wiped");
    record.stable.content = service(2, "");
    put(&fleet.store, &keys::unit(&unit(A)), record::encode(&record)).await;
    let id = "two".to_owned();
    put(
        &fleet.store,
        keys::CLUSTER,
        record::encode(&ClusterRecord { id }),
    )
    .await;
    quiet().await;
    is_held(&fleet).await;
    for machine in &fleet.machines {
        machine.systemd.behave_as(|content| Behaviour {
            start: Duration::from_secs(10),
            ..Behaviour::of(content)
        });
    }
    let registry = hand(&fleet.machines[0]);
    let accepted = registry.accept("two", "a test", "unused");
    accepted.await.expect("accepted");
    let mut restarts = Vec::new();
    for _ in 0..40 {
        sleep(Duration::from_secs(2)).await;
        let up = fleet
            .running()
            .await
            .iter()
            .filter(|up| !up.is_empty())
            .count();
        assert!(up >= 2, "{up} machines are up");
        let logs = fleet.take_logs().concat();
        restarts.extend(logs.into_iter().filter(|line| line.starts_with("restart")));
    }
    assert_eq!(restarts.len(), 3, "{restarts:?}");
}

/// Otherwise it could not be repaired there: what that machine's API changes is for the registry
/// that it has seen.
#[tokio::test(start_paused = true)]
async fn unreadable_metadata_is_restored_by_its_machine() {
    let fleet = Fleet::of(1).await;
    quiet().await;
    let all = vec![Write::DeletePrefix(String::new())];
    fleet.store.commit(vec![], all).await.expect("wiped");
    quiet().await;
    let machine = &fleet.machines[0];
    fleet.damage(keys::metadata(&machine.id)).await;
    let registry = hand(machine);
    let accepted = registry.accept("", "a test", "two");
    accepted.await.expect("accepted");
    quiet().await;
    let normal = Scheduling::Normal;
    let set = registry.set_scheduling(&machine.id, normal).await;
    set.expect("followed");
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    assert_eq!(fleet.running().await, vec![super::fleet::set(&[A])]);
}

/// All machines write who they are as soon as they reach it. One that comes later finds more
/// commits than it has seen.
#[tokio::test(start_paused = true)]
async fn a_backup_is_held_also_by_who_comes_when_it_has_grown() {
    let (mut fleet, _engines) = settled().await;
    let backup = fleet.store.backup();
    fleet.launch("b.service", service(1, "")).await;
    fleet.destroy(A).await;
    quiet().await;
    fleet.machines[2].kill().await;
    let up = set(&["b.service"]);
    assert!(fleet.running().await.iter().all(|running| *running == up));
    fleet.take_logs();
    let restored = backup.restore(1_000_000);
    for number in 0..50 {
        put(&restored, "events/x", vec![number]).await;
    }
    turn_to(&fleet, &restored);
    fleet.machines[2].start();
    quiet().await;
    is_held(&fleet).await;
    // The fleet's own is followed again once it is accepted.
    turn_to(&fleet, &fleet.store);
    let registry = hand(&fleet.machines[0]);
    quiet().await;
    let accepted = registry.accept("one", "a test", "unused");
    accepted.await.expect("accepted");
    quiet().await;
    assert!(fleet.running().await.iter().all(|running| *running == up));
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_in_a_backup_does_not_count_a_second_time() {
    let (fleet, _engines) = settled().await;
    let backup = async || {
        let other = cluster("one").await;
        let record = AcceptanceRecord {
            from: "one".to_owned(),
            cluster: "one".to_owned(),
            at: 7,
            by: "somebody".to_owned(),
        };
        put(&other, keys::ACCEPTANCE, record::encode(&record)).await;
        other
    };
    // The first time nobody had seen it.
    turn_to(&fleet, &backup().await);
    quiet().await;
    let nothing = set(&[]);
    assert!(fleet.running().await.iter().all(|up| *up == nothing));
    let known = hand(&fleet.machines[0]);
    for number in 0..9 {
        let name = unit(&format!("u{number}.service"));
        let submitted = known.submit(
            &name,
            service(1, ""),
            Owner::Api,
            Some(TargetState::Launched),
        );
        submitted.await.expect("followed");
    }
    quiet().await;
    fleet.take_logs();
    turn_to(&fleet, &backup().await);
    quiet().await;
    is_held(&fleet).await;
    refuses(&fleet.machines[0]).await;
    let registry = hand(&fleet.machines[0]);
    registry
        .accept("one", "a test", "unused")
        .await
        .expect("accepted");
    quiet().await;
    assert!(fleet.running().await.iter().all(|up| *up == nothing));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_wiped_and_filled_key_by_key_is_held() {
    let (fleet, _engines) = settled().await;
    let all = vec![Write::DeletePrefix(String::new())];
    fleet.store.commit(vec![], all).await.expect("wiped");
    let id = ClusterRecord {
        id: "one".to_owned(),
    };
    put(&fleet.store, keys::CLUSTER, record::encode(&id)).await;
    quiet().await;
    is_held(&fleet).await;
    refuses(&fleet.machines[0]).await;
    let up = set(&[A]);
    assert!(fleet.running().await.iter().all(|running| *running == up));
}

/// Each prefix has a watch of its own, and some of them are late.
#[tokio::test(start_paused = true)]
async fn registry_restored_key_by_key_in_any_order_stops_nothing() {
    for seed in 0..60 {
        let fleet = Fleet::of(2).await;
        for machine in &fleet.machines {
            let gpu = (machine.id.clone(), "gpu".to_owned(), Some("yes".to_owned()));
            fleet.registry.set_metadata(&[gpu]).await.expect("set");
        }
        for (name, placed) in [
            (A, ""),
            ("b.service", ""),
            ("c.service", "MachineMetadata=gpu=yes"),
        ] {
            fleet.launch(name, service(1, placed)).await;
        }
        quiet().await;
        fleet.take_logs();
        for (number, machine) in fleet.machines.iter().enumerate() {
            machine.weather.skew(seed << 8 ^ number as u64);
            machine.weather.swap(&fleet.store);
        }
        quiet().await;
        let all = fleet.store.list(&[""]).await.expect("lists").entries;
        if seed % 2 == 0 {
            let everything = vec![Write::DeletePrefix(String::new())];
            fleet.store.commit(vec![], everything).await.expect("gone");
        } else {
            for key in all.keys() {
                let write = vec![Write::Delete(key.clone())];
                fleet.store.commit(vec![], write).await.expect("gone");
                sleep(Duration::from_millis(seed % 7)).await;
            }
        }
        if seed % 3 == 0 {
            // From the copy that somebody keeps, in which one of the units did not run.
            for (key, entry) in &all {
                sleep(Duration::from_millis(seed % 5)).await;
                put(&fleet.store, key, entry.value.to_vec()).await;
                if *key == keys::unit(&unit(A)) {
                    fleet.set_target(A, TargetState::Inactive).await;
                }
            }
        }
        quiet().await;
        is_held(&fleet).await;
        let up = set(&[A, "b.service", "c.service"]);
        assert!(fleet.running().await.iter().all(|it| *it == up), "{seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn machine_with_damaged_desired_state_knows_its_registry() {
    for both in [false, true] {
        let (mut fleet, _engines) = settled().await;
        for machine in &mut fleet.machines {
            machine.kill().await;
            let file = machine.desired_file();
            std::fs::write(&file, "{half").expect("written");
            if both {
                std::fs::write(file.with_file_name("seen.json"), "").expect("written");
            }
            machine.weather.swap(&cluster("two").await);
            machine.start();
        }
        quiet().await;
        is_held(&fleet).await;
        refuses(&fleet.machines[0]).await;
        for machine in &mut fleet.machines {
            machine.weather.swap(&fleet.store);
        }
        quiet().await;
        if both {
            is_held(&fleet).await;
            assert_eq!(fleet.machines[0].trust().borrow().belongs_to(), None);
        } else {
            fleet.has_converged().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_has_seen_none_may_make_the_first_id() {
    let new = Embedded::in_memory();
    let fleet = Fleet::of_store(&new, 1);
    let _engine = engine(&fleet.machines[0]);
    quiet().await;
    let id: ClusterRecord = {
        let all = new.list(&[keys::CLUSTER]).await.expect("lists");
        record::decode(&all.entries[keys::CLUSTER].value).expect("an id")
    };
    assert_eq!(id.id, "f".repeat(32));
    let mine = MachineId::parse(fleet.machines[0].id.as_str()).expect("valid");
    let name: UnitName = unit(A);
    let registry = hand(&fleet.machines[0]);
    let owner = Owner::Directory(mine);
    let submitted = registry.submit(&name, service(1, ""), owner, Some(TargetState::Launched));
    submitted.await.expect("followed");
    quiet().await;
    assert_eq!(fleet.running().await, vec![set(&[A])]);
}
