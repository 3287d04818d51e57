//! The registry away, emptied, older or another's, and values in it that cannot be read: what runs
//! goes on.

use std::time::Duration;

use fleet_core::keys;
use fleetd::store::Embedded;
use fleetd::systemd::SystemdError;
use tokio::time::sleep;

use super::fleet::{AGENT_TTL, Fleet, cluster, quiet, service, set, unit};
use super::weather::Sky;

fn stopped(logs: &[Vec<String>]) -> bool {
    let touches = |line: &String| {
        ["stop", "restart", "remove"]
            .iter()
            .any(|verb| line.starts_with(verb))
    };
    logs.iter().flatten().any(touches)
}

#[tokio::test(start_paused = true)]
async fn registry_unreachable_for_hours_stops_nothing() {
    for sky in [Sky::Away, Sky::Silent, Sky::Slow] {
        let mut fleet = Fleet::of(3).await;
        fleet.launch("a.service", service(1, "")).await;
        quiet().await;
        for machine in &fleet.machines {
            machine.weather.turn(sky);
        }
        sleep(Duration::from_secs(3600)).await;
        // While it is away: an agent that starts anew, and a machine that does.
        fleet.machines[0].kill().await;
        fleet.machines[0].start();
        fleet.machines[1].reboot().await;
        quiet().await;
        assert!(!stopped(&fleet.take_logs()), "{sky:?}");
        assert!(
            fleet
                .running()
                .await
                .iter()
                .all(|up| *up == set(&["a.service"]))
        );
        fleet.launch("b.service", service(1, "")).await;
        fleet.destroy("a.service").await;
        for machine in &fleet.machines {
            machine.weather.turn(Sky::Clear);
        }
        quiet().await;
        assert!(
            fleet
                .running()
                .await
                .iter()
                .all(|up| *up == set(&["b.service"]))
        );
        fleet.has_converged().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_was_wiped_or_restored_or_is_anothers_is_held() {
    let backup = cluster("one").await;
    for other in [Embedded::in_memory(), cluster("two").await, backup] {
        let mut fleet = Fleet::of(5).await;
        fleet.launch("a.service", service(1, "")).await;
        quiet().await;
        fleet.take_logs();
        for machine in &mut fleet.machines {
            machine.weather.swap(&other);
        }
        quiet().await;
        for machine in &mut fleet.machines {
            machine.kill().await;
            machine.start();
        }
        quiet().await;
        assert_eq!(fleet.take_logs().concat(), Vec::<String>::new());
        fleet.machines[0].reboot().await;
        quiet().await;
        assert!(
            fleet
                .running()
                .await
                .iter()
                .all(|up| *up == set(&["a.service"]))
        );
    }
}

/// The agent takes what has come meanwhile in one go: an instruction and, right behind it, a
/// registry that is empty.
#[tokio::test(start_paused = true)]
async fn an_empty_registry_right_behind_an_instruction_is_held() {
    let fleet = Fleet::of(1).await;
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    fleet.take_logs();
    let machine = &fleet.machines[0];
    // The agent is busy, so both wait for it.
    machine.hands.last(Some(0));
    machine.systemd.crash(&unit("a.service"));
    machine.hands.stuck.notified().await;
    fleet.launch("b.service", service(1, "")).await;
    sleep(Duration::from_millis(10)).await;
    machine.weather.swap(&Embedded::in_memory());
    quiet().await;
    machine.hands.release();
    quiet().await;
    assert!(!stopped(&fleet.take_logs()));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_unit_stays_as_it_is_and_the_others_go_on() {
    let mut fleet = Fleet::of(3).await;
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    fleet.take_logs();
    fleet.damage(keys::unit(&unit("a.service"))).await;
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    for machine in &mut fleet.machines {
        machine.kill().await;
        machine.start();
    }
    quiet().await;
    assert!(!stopped(&fleet.take_logs()));
    let both = set(&["a.service", "b.service"]);
    assert!(fleet.running().await.iter().all(|up| *up == both));
    let report = fleet.report(&fleet.machines[0]).await.expect("a report");
    assert!(report.problems["units/a.service"].contains("damaged"));
    fleet.destroy("a.service").await;
    quiet().await;
    fleet.has_converged().await;
}

/// Without its metadata nobody knows what a machine should have: nothing is an instruction.
#[tokio::test(start_paused = true)]
async fn a_machine_whose_metadata_is_damaged_stays_as_it_is() {
    let mut fleet = Fleet::of(2).await;
    let id = fleet.machines[0].id.clone();
    let gpu = (id.clone(), "gpu".to_owned(), Some("yes".to_owned()));
    fleet
        .registry
        .set_metadata(std::slice::from_ref(&gpu))
        .await
        .expect("set");
    fleet
        .launch("a.service", service(1, "MachineMetadata=gpu=yes"))
        .await;
    quiet().await;
    assert_eq!(fleet.machines[0].running().await, set(&["a.service"]));
    fleet.take_logs();
    fleet.damage(keys::metadata(&id)).await;
    quiet().await;
    fleet.machines[0].kill().await;
    fleet.machines[0].start();
    quiet().await;
    assert!(!stopped(&fleet.take_logs()));
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    assert_eq!(fleet.machines[1].running().await, set(&["b.service"]));
    fleet.registry.set_metadata(&[gpu]).await.expect("mended");
    quiet().await;
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn machine_that_leaves_removes_its_presence_and_report() {
    let mut fleet = Fleet::of(2).await;
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    fleet.machines[0].kill().await;
    sleep(AGENT_TTL + Duration::from_secs(1)).await;
    let gone = &fleet.machines[0];
    assert!(fleet.report(gone).await.is_none());
    assert!(fleet.entry(&keys::machine(&gone.id)).await.is_none());
    assert!(fleet.report(&fleet.machines[1]).await.is_some());
    fleet.machines[0].start();
    quiet().await;
    assert!(fleet.report(&fleet.machines[0]).await.is_some());
}

/// A look that failed half way through is made up for whole, whatever comes first.
#[tokio::test(start_paused = true)]
async fn instruction_after_a_failed_look_finds_what_was_missed() {
    let mut fleet = Fleet::of(1).await;
    fleet.launch("a.service", service(1, "")).await;
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    let hands = fleet.machines[0].hands.clone();
    let away = SystemdError::Unavailable("no answer".to_owned());
    fleet.machines[0].kill().await;
    fleet.destroy("b.service").await;
    hands.fail("details", &unit("a.service"), Some(away));
    fleet.machines[0].start();
    sleep(Duration::from_millis(10)).await;
    hands.fail("details", &unit("a.service"), None);
    fleet.launch("c.service", service(1, "")).await;
    quiet().await;
    let log = fleet.take_logs().concat();
    assert!(log.contains(&"stop b.service".to_owned()), "{log:?}");
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn accepted_restart_is_not_repeated_for_an_unanswered_one() {
    let mut fleet = Fleet::of(1).await;
    for name in ["a.service", "b.service"] {
        fleet.launch(name, service(1, "")).await;
    }
    quiet().await;
    fleet.take_logs();
    let hands = fleet.machines[0].hands.clone();
    let away = SystemdError::Unavailable("no answer".to_owned());
    hands.fail("restart", &unit("a.service"), Some(away));
    for name in ["a.service", "b.service"] {
        fleet.submit(name, service(2, ""), None).await;
    }
    fleet.let_all_go().await;
    quiet().await;
    hands.fail("restart", &unit("a.service"), None);
    quiet().await;
    let log = fleet.take_logs().concat();
    for name in ["a.service", "b.service"] {
        let restarts = log
            .iter()
            .filter(|line| **line == format!("restart {name}"));
        assert_eq!(restarts.count(), 1, "{log:?}");
    }
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_the_registry_does_not_take_hides_no_machine() {
    let mut fleet = Fleet::of(1).await;
    let hands = fleet.machines[0].hands.clone();
    let error = SystemdError::Refused("x".repeat(2 << 20));
    hands.fail("write", &unit("a.service"), Some(error));
    fleet.launch("a.service", service(1, "")).await;
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    let machine = &fleet.machines[0];
    assert!(fleet.entry(&keys::machine(&machine.id)).await.is_some());
    let report = fleet.report(machine).await.expect("a report");
    assert!(report.problems["report"].contains("limit"), "{report:?}");
    hands.fail("write", &unit("a.service"), None);
    quiet().await;
    assert_eq!(
        fleet
            .report(&fleet.machines[0])
            .await
            .map(|report| report.units.len()),
        Some(2)
    );
    fleet.has_converged().await;
}

/// The watchdog must not end a daemon that is busy with many units.
#[tokio::test(start_paused = true)]
async fn many_slow_calls_are_not_a_loop_that_is_stuck() {
    let fleet = Fleet::of(1).await;
    let machine = &fleet.machines[0];
    quiet().await;
    machine.hands.take(Duration::from_secs(2));
    for number in 0..40 {
        let name = format!("u{number}.service");
        fleet.launch(&name, service(1, "")).await;
    }
    for _ in 0..600 {
        sleep(Duration::from_secs(1)).await;
        assert!(machine.heart.beats());
    }
    assert_eq!(machine.running().await.len(), 40);
    machine.hands.last(Some(0));
    machine.systemd.crash(&unit("u1.service"));
    quiet().await;
    quiet().await;
    assert!(!machine.heart.beats(), "a call that never returns is told");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_systemd_says_nothing_of_keeps_no_other_waiting() {
    for method in ["details", "foreign"] {
        let mut fleet = Fleet::of(1).await;
        let hands = fleet.machines[0].hands.clone();
        let error = SystemdError::Refused("no".to_owned());
        hands.fail(method, &unit("a.service"), Some(error));
        fleet.launch("a.service", service(1, "")).await;
        fleet.launch("b.service", service(1, "")).await;
        quiet().await;
        assert!(
            fleet.machines[0].running().await.contains("b.service"),
            "{method}"
        );
        hands.fail(method, &unit("a.service"), None);
        quiet().await;
        fleet.has_converged().await;
    }
}
