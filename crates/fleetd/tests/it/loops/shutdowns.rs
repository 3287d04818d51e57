//! What a machine reports while its host shuts down.

use std::time::Duration;

use fleetd::store::Store as _;
use tokio::time::sleep;

use super::fleet::{AGENT_TTL, Fleet, quiet, service, unit};

const A: &str = "a.service";

async fn unknown(fleet: &Fleet) -> Option<String> {
    let report = fleet.report(&fleet.machines[0]).await.expect("a report");
    assert_eq!(
        report.unknown.is_some(),
        report.units.is_empty(),
        "{report:?}"
    );
    report.unknown
}

async fn with_a_unit() -> Fleet {
    let fleet = Fleet::of(1).await;
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    assert_eq!(unknown(&fleet).await, None);
    fleet
}

#[tokio::test(start_paused = true)]
async fn what_stops_with_its_host_is_not_reported_as_failed() {
    let mut fleet = with_a_unit().await;
    fleet.machines[0].systemd.shut_down();
    fleet.machines[0].systemd.crash(&unit(A));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        unknown(&fleet).await.as_deref(),
        Some("it is shutting down")
    );
    let revision = fleet.store.list(&[]).await.expect("lists").revision;
    sleep(3 * AGENT_TTL).await;
    let later = fleet.store.list(&[]).await.expect("lists").revision;
    assert_eq!(later, revision, "it says so once");
    fleet.machines[0].reboot().await;
    quiet().await;
    assert_eq!(unknown(&fleet).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_shuts_down_is_known_to_before_fleetd_ends() {
    let mut fleet = with_a_unit().await;
    let session = fleet.session(&fleet.machines[0]).await;
    fleet.machines[0].systemd.shut_down();
    fleet.machines[0].say_goodbye().await;
    fleet.machines[0].kill().await;
    assert_eq!(
        unknown(&fleet).await.as_deref(),
        Some("it is shutting down")
    );
    assert_eq!(fleet.session(&fleet.machines[0]).await, session);
    sleep(2 * AGENT_TTL).await;
    assert!(
        fleet.report(&fleet.machines[0]).await.is_none(),
        "its lease is over"
    );
}
