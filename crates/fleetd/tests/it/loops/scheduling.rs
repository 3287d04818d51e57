//! Machines on which not everything may start.

use fleet_core::keys;
use fleet_core::machine::Scheduling;
use fleet_core::record::{self, MetadataRecord};
use fleet_core::unit::TargetState;

use super::fleet::{Fleet, quiet, service, set};
use super::weather::Sky;

async fn schedule(fleet: &Fleet, scheduling: Scheduling) {
    let record = MetadataRecord {
        scheduling,
        ..MetadataRecord::default()
    };
    let key = keys::metadata(&fleet.machines[0].id);
    fleet.put(key, record::encode(&record)).await;
    quiet().await;
}

fn touched(fleet: &Fleet) -> Vec<String> {
    let mut log = fleet.machines[0].take_log();
    log.retain(|line| !line.starts_with("write") && !line.starts_with("link"));
    log
}

#[tokio::test(start_paused = true)]
async fn cordoned_machine_keeps_its_units_and_starts_none() {
    let mut fleet = Fleet::of(2).await;
    fleet.launch("a.service", service(1, "")).await;
    fleet.launch("b.service", service(1, "")).await;
    let loaded = Some(TargetState::Loaded);
    fleet.submit("loaded.service", service(1, ""), loaded).await;
    quiet().await;
    schedule(&fleet, Scheduling::Cordoned).await;
    fleet.take_logs();
    fleet.launch("new.service", service(1, "")).await;
    fleet.launch("loaded.service", service(1, "")).await;
    fleet.submit("a.service", service(2, ""), None).await;
    quiet().await;
    assert_eq!(touched(&fleet), Vec::<String>::new());
    let here = fleet.machines[0].running().await;
    assert_eq!(here, set(&["a.service", "b.service"]));
    let elsewhere = fleet.machines[1].running().await;
    assert_eq!(elsewhere.len(), 4, "{elsewhere:?}");
    // What is stopped is stopped there too, and does not come back.
    fleet.set_target("b.service", TargetState::Loaded).await;
    quiet().await;
    fleet.set_target("b.service", TargetState::Launched).await;
    quiet().await;
    assert_eq!(fleet.machines[0].running().await, set(&["a.service"]));
    schedule(&fleet, Scheduling::Normal).await;
    fleet.let_all_go().await;
    quiet().await;
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn unit_that_tolerates_a_cordon_starts_and_updates_there() {
    let mut fleet = Fleet::of(2).await;
    schedule(&fleet, Scheduling::Cordoned).await;
    fleet.launch("plain.service", service(1, "")).await;
    let tolerant = |version| service(version, "Tolerates=cordon");
    fleet.launch("a.service", tolerant(1)).await;
    quiet().await;
    assert_eq!(fleet.machines[0].running().await, set(&["a.service"]));
    fleet.take_logs();
    fleet.submit("a.service", tolerant(2), None).await;
    fleet.let_all_go().await;
    quiet().await;
    assert!(!touched(&fleet).is_empty(), "the update reaches it");
    schedule(&fleet, Scheduling::Drained).await;
    assert_eq!(fleet.machines[0].running().await, set(&[]));
    schedule(&fleet, Scheduling::Normal).await;
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn unit_kept_off_by_a_cordon_excludes_no_other() {
    let fleet = Fleet::of(1).await;
    let first = service(1, "Conflicts=b.service");
    fleet.submit("a.service", first, None).await;
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    schedule(&fleet, Scheduling::Cordoned).await;
    fleet.set_target("a.service", TargetState::Launched).await;
    quiet().await;
    assert_eq!(fleet.machines[0].running().await, set(&["b.service"]));
}

#[tokio::test(start_paused = true)]
async fn drained_machine_runs_no_unit_until_uncordoned() {
    let mut fleet = Fleet::of(2).await;
    fleet.launch("a.service", service(1, "")).await;
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    fleet.damage("units/b.service".to_owned()).await;
    schedule(&fleet, Scheduling::Drained).await;
    assert_eq!(fleet.machines[0].running().await, set(&[]));
    assert_eq!(fleet.machines[1].running().await.len(), 2);
    fleet.take_logs();
    fleet.machines[0].weather.turn(Sky::Away);
    fleet.machines[0].kill().await;
    fleet.machines[0].start();
    quiet().await;
    fleet.machines[0].reboot().await;
    quiet().await;
    assert_eq!(touched(&fleet), ["reboot"]);
    fleet.machines[0].weather.turn(Sky::Clear);
    quiet().await;
    assert_eq!(touched(&fleet), Vec::<String>::new());
    fleet.destroy("b.service").await;
    schedule(&fleet, Scheduling::Normal).await;
    assert_eq!(fleet.machines[0].running().await, set(&["a.service"]));
    fleet.has_converged().await;
}
