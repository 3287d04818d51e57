//! Two machines with one id, as clones of one disk have: one is listed, both run their units, and
//! both say so.

use std::time::Duration;

use fleet_core::keys;
use fleetd::store::Store as _;
use tokio::time::sleep;

use super::fleet::{AGENT_TTL, Fleet, quiet, service, set};

const A: &str = "a.service";

/// What the registry says is wrong with the id of the machines.
async fn reported(fleet: &Fleet) -> String {
    let report = fleet.report(&fleet.machines[0]).await.expect("a report");
    report
        .problems
        .get("machine id")
        .cloned()
        .unwrap_or_default()
}

/// What a machine shows of it in its own status line.
fn shown(fleet: &Fleet, at: usize) -> String {
    let standing = fleet.machines[at].standing();
    let text = standing.borrow().problems.get("machine id").cloned();
    text.unwrap_or_default()
}

async fn twins(fleet: &Fleet) -> usize {
    let prefix = format!("{}/", keys::machine(&fleet.machines[0].id));
    let snapshot = fleet.store.list(&[&prefix]).await.expect("lists");
    snapshot.entries.len()
}

async fn revision(fleet: &Fleet) -> u64 {
    fleet.store.list(&[""]).await.expect("lists").revision
}

/// A fleet of two machines that have the id of the first; the second came last.
async fn cloned() -> Fleet {
    let mut fleet = Fleet::of(1).await;
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    fleet.clone_machine();
    quiet().await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn later_of_two_machines_with_one_id_is_listed() {
    let fleet = cloned().await;
    assert!(
        shown(&fleet, 0).contains("so this one stands aside"),
        "{}",
        shown(&fleet, 0)
    );
    assert!(
        shown(&fleet, 1).contains("and stands aside: "),
        "{}",
        shown(&fleet, 1)
    );
    assert_eq!(reported(&fleet).await, shown(&fleet, 1));
    assert!(reported(&fleet).await.contains("systemd-machine-id-setup"));
    let before = (
        fleet.session(&fleet.machines[0]).await,
        revision(&fleet).await,
    );
    // Each has something to report, each for itself.
    for machine in &fleet.machines {
        machine.systemd.crash(&super::fleet::unit(A));
    }
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(fleet.session(&fleet.machines[0]).await, before.0);
    let writes = revision(&fleet).await - before.1;
    assert!(writes <= 2, "{writes} writes in an hour");
    fleet.launch("b.service", service(1, "")).await;
    fleet.destroy(A).await;
    quiet().await;
    for machine in &fleet.machines {
        assert_eq!(machine.running().await, set(&["b.service"]));
    }
}

#[tokio::test(start_paused = true)]
async fn twin_that_stood_aside_returns_when_the_other_is_gone() {
    let mut fleet = cloned().await;
    let session = fleet.session(&fleet.machines[0]).await;
    fleet.machines[1].kill().await;
    sleep(AGENT_TTL * 2).await;
    assert_ne!(fleet.session(&fleet.machines[0]).await, session);
    assert_eq!(reported(&fleet).await, "");
    assert_eq!(shown(&fleet, 0), "");
    assert_eq!(twins(&fleet).await, 0);
}

#[tokio::test(start_paused = true)]
async fn listed_twin_reports_no_problem_when_the_other_is_gone() {
    let mut fleet = cloned().await;
    let session = fleet.session(&fleet.machines[0]).await;
    fleet.machines[0].kill().await;
    sleep(AGENT_TTL * 2).await;
    assert_eq!(fleet.session(&fleet.machines[0]).await, session);
    assert_eq!(reported(&fleet).await, "");
    assert_eq!(shown(&fleet, 1), "");
}

#[tokio::test(start_paused = true)]
async fn a_fleetd_that_starts_again_is_no_other_machine() {
    let mut fleet = Fleet::of(1).await;
    for pause in [0, 10, 3000, 40_000] {
        quiet().await;
        fleet.machines[0].kill().await;
        sleep(Duration::from_millis(pause)).await;
        fleet.machines[0].start();
        quiet().await;
        assert_eq!(reported(&fleet).await, "");
        assert_eq!(twins(&fleet).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn three_machines_with_one_id_come_to_rest() {
    let mut fleet = cloned().await;
    fleet.clone_machine();
    quiet().await;
    assert_eq!(twins(&fleet).await, 2);
    let revision_before = revision(&fleet).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(revision(&fleet).await, revision_before);
    fleet.machines[2].kill().await;
    sleep(AGENT_TTL * 3).await;
    assert_eq!(twins(&fleet).await, 1);
    assert!(reported(&fleet).await.contains("stands aside"));
}
