//! What users ask for reaches every machine, once; what cannot be done on one waits there alone.

use std::time::Duration;

use fleet_core::unit::Content;
use fleet_core::unit::TargetState;
use fleetd::systemd::fake::Behaviour;
use fleetd::systemd::{Systemd as _, SystemdError};
use tokio::time::sleep;

use super::fleet::{Fleet, quiet, service, set, unit};

#[tokio::test(start_paused = true)]
async fn start_stop_and_destroy_reach_every_machine() {
    let mut fleet = Fleet::of(20).await;
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    assert!(
        fleet
            .running()
            .await
            .iter()
            .all(|up| *up == set(&["a.service"]))
    );
    fleet.has_converged().await;
    fleet.set_target("a.service", TargetState::Loaded).await;
    quiet().await;
    fleet.has_converged().await;
    fleet.set_target("a.service", TargetState::Launched).await;
    quiet().await;
    fleet.has_converged().await;
    fleet.destroy("a.service").await;
    quiet().await;
    assert!(fleet.running().await.iter().all(|up| up.is_empty()));
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_restarts_once_and_an_update_of_a_comment_never() {
    let mut fleet = Fleet::of(3).await;
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    fleet.take_logs();
    fleet.submit("a.service", service(2, ""), None).await;
    fleet.let_all_go().await;
    quiet().await;
    for log in fleet.take_logs() {
        assert_eq!(
            log.iter()
                .filter(|line| *line == "restart a.service")
                .count(),
            1
        );
        assert!(!log.iter().any(|line| line.starts_with("stop")), "{log:?}");
    }
    fleet.submit("a.service", service(2, "# new"), None).await;
    quiet().await;
    for log in fleet.take_logs() {
        assert!(!log.iter().any(|line| line.contains("start")), "{log:?}");
    }
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn second_of_two_conflicting_units_takes_over_after_the_first() {
    for (first, second) in [("a.service", "b.service"), ("b.service", "a.service")] {
        let mut fleet = Fleet::of(10).await;
        let conflicts = |other: &str| service(1, &format!("Conflicts={other}"));
        fleet.launch(first, conflicts(second)).await;
        fleet.launch(second, service(1, "")).await;
        quiet().await;
        assert!(fleet.running().await.iter().all(|up| *up == set(&[first])));
        fleet.take_logs();
        fleet.destroy(first).await;
        quiet().await;
        for log in fleet.take_logs() {
            let at = |line: String| log.iter().position(|other| *other == line);
            assert!(
                at(format!("stop {first}")) < at(format!("start {second}")),
                "{log:?}"
            );
        }
        assert!(fleet.running().await.iter().all(|up| *up == set(&[second])));
        fleet.has_converged().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_starts_once_its_destroyed_rival_has_stopped() {
    for (first, second) in [("a.service", "b.service"), ("b.service", "a.service")] {
        let mut fleet = Fleet::of(1).await;
        let conflicts = |other: &str| service(1, &format!("Conflicts={other}"));
        fleet.launch(first, conflicts(second)).await;
        fleet.launch(second, service(1, "")).await;
        quiet().await;
        let slow = Behaviour {
            stop: Duration::from_secs(5),
            ..Behaviour::of(&service(1, ""))
        };
        let systemd = fleet.machines[0].systemd.clone();
        systemd.behave(&unit(first), slow);
        systemd.heal(&unit(first));
        sleep(Duration::from_secs(8)).await;
        fleet.destroy(first).await;
        sleep(Duration::from_secs(3)).await;
        let up = fleet.machines[0].running().await;
        assert!(!up.contains(second), "both run: {up:?}");
        quiet().await;
        assert_eq!(fleet.machines[0].running().await, set(&[second]));
        fleet.has_converged().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_unit_is_not_started_by_what_refers_to_it() {
    let mut fleet = Fleet::of(1).await;
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    let systemd = fleet.machines[0].systemd.clone();
    let name = unit("a.service");
    systemd.hold(&name);
    fleet.destroy("a.service").await;
    quiet().await;
    assert!(!systemd.trigger(&name), "systemd still has it");
    assert_eq!(systemd.calls("reload"), 1);
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn a_oneshot_that_never_ran_is_not_ready_and_says_why() {
    for (unit, why) in [
        (
            "AssertPathExists=!/",
            "an assertion in its file is not met (AssertPathExists=!/)",
        ),
        (
            "Requires=never.service",
            "a unit that it requires did not start (Requires=never.service)",
        ),
    ] {
        let fleet = Fleet::of(1).await;
        let text = format!(
            "[Unit]\n{unit}\n[Service]\nType=oneshot\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\n"
        );
        fleet.launch("a.service", Content::from(&*text)).await;
        quiet().await;
        let report = fleet.unit_report(&fleet.machines[0], "a.service").await;
        assert!(!report.ready, "{report:?}");
        let failed = report.failed.unwrap_or_default();
        assert!(failed.contains(why), "{failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_systemd_does_not_read_touches_nothing() {
    let mut fleet = Fleet::of(1).await;
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    fleet.take_logs();
    fleet.submit("a.service", service(1, "# new"), None).await;
    quiet().await;
    assert_eq!(fleet.take_logs(), [Vec::<String>::new()]);
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_starts_when_the_unit_that_it_names_comes() {
    let fleet = Fleet::of(1).await;
    let timer = "[Timer]\nOnCalendar=daily\nUnit=n.service\n[X-Fleet]\nGlobal=true\n";
    fleet.launch("b.timer", Content::from(timer)).await;
    quiet().await;
    let report = fleet.unit_report(&fleet.machines[0], "b.timer").await;
    let failed = report.failed.unwrap_or_default();
    assert!(
        failed.contains("n.service, which it starts, is not on"),
        "{failed}"
    );
    fleet
        .submit("n.service", service(1, ""), Some(TargetState::Loaded))
        .await;
    quiet().await;
    assert_eq!(fleet.machines[0].running().await, set(&["b.timer"]));
}

#[tokio::test(start_paused = true)]
async fn a_socket_takes_its_new_address_while_its_service_runs() {
    let fleet = Fleet::of(1).await;
    let socket = |port: u32| {
        Content::from(&*format!(
            "[Socket]\nListenStream={port}\n[X-Fleet]\nGlobal=true\n"
        ))
    };
    fleet
        .submit("a.service", service(1, ""), Some(TargetState::Loaded))
        .await;
    fleet.launch("a.socket", socket(1)).await;
    quiet().await;
    let systemd = fleet.machines[0].systemd.clone();
    assert!(systemd.trigger(&unit("a.service")));
    quiet().await;
    fleet.submit("a.socket", socket(2), None).await;
    fleet.let_all_go().await;
    quiet().await;
    assert_eq!(fleet.machines[0].running().await, set(&["a.socket"]));
    let report = fleet.unit_report(&fleet.machines[0], "a.socket").await;
    assert!(report.ready, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_left_alone_until_it_is_free() {
    let mut fleet = Fleet::of(2).await;
    let name = unit("a.service");
    fleet.machines[0].systemd.set_foreign(&name, Some("/etc/a"));
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    assert!(fleet.machines[0].take_log().is_empty());
    let report = fleet.report(&fleet.machines[0]).await.expect("a report");
    assert!(
        report.problems["a.service"].contains("/etc/a"),
        "{report:?}"
    );
    assert_eq!(fleet.machines[1].running().await, set(&["a.service"]));
    // systemd tells nobody that a file which it never read is gone.
    fleet.machines[0].systemd.set_foreign(&name, None);
    quiet().await;
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn failing_unit_is_retried_while_others_change() {
    for method in ["write", "link", "start"] {
        let mut fleet = Fleet::of(1).await;
        let error = SystemdError::Refused("no".to_owned());
        let hands = fleet.machines[0].hands.clone();
        hands.fail(method, &unit("a.service"), Some(error));
        fleet.launch("a.service", service(1, "")).await;
        fleet.launch("b.service", service(1, "")).await;
        quiet().await;
        assert!(fleet.machines[0].running().await.contains("b.service"));
        let tried = hands.take_tried();
        assert!(tried.len() > 1, "{method}: tried {} times", tried.len());
        assert!(tried.len() < 60, "{method}: tried {} times", tried.len());
        // A unit whose state changes all the time must not push the next try away.
        let flapping = unit("b.service");
        let flaps = tokio::spawn({
            let systemd = fleet.machines[0].systemd.clone();
            async move {
                loop {
                    systemd.crash(&flapping);
                    let _ = systemd.start(&flapping).await;
                    sleep(Duration::from_millis(60)).await;
                }
            }
        });
        sleep(Duration::from_secs(15)).await;
        assert!(
            !hands.take_tried().is_empty(),
            "{method}: not tried while another unit flaps"
        );
        flaps.abort();
        hands.fail(method, &unit("a.service"), None);
        quiet().await;
        fleet.has_converged().await;
    }
}

/// Else a history of the simulation replays differently, and a deadline counts by another clock
/// than the leader's.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_change_is_that_of_the_clock_that_was_given() {
    let fleet = Fleet::of(1).await;
    let registry = fleet.registry.clone().with_clock(|| 7);
    fleet.launch("a.service", service(1, "")).await;
    quiet().await;
    fleet.submit("a.service", service(2, ""), None).await;
    let name = unit("a.service");
    let loaded = registry.set_target(&name, TargetState::Loaded);
    assert!(loaded.await.expect("set"));
    let (record, _) = fleet.record("a.service").await;
    assert_eq!(record.candidate.expect("rolling").since, 7);
}

#[tokio::test(start_paused = true)]
async fn soft_reboot_starts_what_it_ended_and_no_more() {
    let mut fleet = Fleet::of(1).await;
    let survivor = Content::from(
        "[Unit]\nSurviveFinalKillSignal=yes\n[Service]\nExecStart=/x\n[X-Fleet]\nGlobal=true\n",
    );
    fleet.launch("survivor.service", survivor).await;
    for name in ["a.service", "stopped.service"] {
        fleet.launch(name, service(1, "")).await;
    }
    let once = "[Service]\nType=oneshot\nExecStart=/x\n[X-Fleet]\nGlobal=true\n";
    fleet.launch("once.service", Content::from(once)).await;
    quiet().await;
    fleet
        .set_target("stopped.service", TargetState::Loaded)
        .await;
    quiet().await;
    for _ in 0..2 {
        fleet.take_logs();
        fleet.machines[0].soft_reboot().await;
        quiet().await;
        let log = fleet.machines[0].take_log();
        assert_eq!(
            log,
            ["soft-reboot", "start a.service", "start once.service"]
        );
        // Another fleetd finds what this one has started.
        fleet.machines[0].kill().await;
        fleet.machines[0].start();
        quiet().await;
        assert_eq!(fleet.machines[0].take_log(), [""; 0]);
        let running = fleet.machines[0].running().await;
        assert_eq!(running, set(&["a.service", "survivor.service"]));
    }
}

#[tokio::test(start_paused = true)]
async fn loaded_template_is_on_machines_until_it_is_unloaded() {
    let mut fleet = Fleet::of(2).await;
    let name = unit("a@.service");
    let target = Some(TargetState::Loaded);
    fleet.submit("a@.service", service(1, ""), target).await;
    quiet().await;
    let new = ["write a@.service", "link a@.service", "reload"];
    assert!(fleet.take_logs().iter().all(|log| *log == new));
    for machine in &fleet.machines {
        let told = fleet.unit_report(machine, "a@.service").await;
        assert!(told.ready && told.available, "{told:?}");
    }
    fleet.submit("a@.service", service(2, ""), None).await;
    quiet().await;
    assert!(fleet.take_logs().iter().all(|log| *log == new));
    fleet.has_converged().await;
    fleet.set_target("a@.service", TargetState::Inactive).await;
    quiet().await;
    for machine in &fleet.machines {
        assert_eq!(
            machine.systemd.on_disk(&name).await.expect("read").file,
            None
        );
    }
    assert!(
        fleet
            .take_logs()
            .iter()
            .all(|log| *log == ["remove a@.service", "reload"])
    );
    fleet.has_converged().await;
}

#[tokio::test(start_paused = true)]
async fn busy_unit_is_asked_to_stop_a_few_times() {
    let mount = |options: &str| {
        let mount = format!("[Mount]\nWhat=tmpfs\nWhere=/a\nOptions={options}\n");
        Content::from(format!("{mount}[X-Fleet]\nGlobal=true\n").as_str())
    };
    for target in [TargetState::Inactive, TargetState::Loaded] {
        let mut fleet = Fleet::of(1).await;
        fleet.launch("a.mount", mount("size=1M")).await;
        quiet().await;
        let systemd = fleet.machines[0].systemd.clone();
        let name = unit("a.mount");
        systemd.set_busy(&name, true);
        fleet.set_target("a.mount", target).await;
        sleep(Duration::from_millis(500)).await;
        let told = fleet.report(&fleet.machines[0]).await.expect("a report");
        let problem = &told.problems["a.mount"];
        assert!(
            problem.contains("its stop was not done: failed"),
            "{problem}"
        );
        let modified = async |fleet: &Fleet| {
            let report = fleet
                .entry(&fleet_core::keys::report(&fleet.machines[0].id))
                .await;
            report.expect("a report").modified
        };
        let before = modified(&fleet).await;
        sleep(Duration::from_secs(10)).await;
        let log = fleet.machines[0].take_log();
        let stops = log.iter().filter(|line| *line == "stop a.mount").count();
        assert!((2..=5).contains(&stops), "{stops} stops");
        assert_eq!(modified(&fleet).await, before, "{log:?}");
        systemd.set_busy(&name, false);
        sleep(Duration::from_secs(15)).await;
        fleet.has_converged().await;
        assert_eq!(fleet.machines[0].running().await, set(&[]));
    }
}
