//! What a machine says of a unit in the course of time: ready, available, failed.

use std::time::Duration;

use fleet_core::keys;
use fleet_core::record::{self, Known, MachineRecord, UnitReport};
use fleet_core::unit::TargetState;
use fleetd::store::{Store as _, Write};
use fleetd::systemd::fake::{Behaviour, Outcome};
use fleetd::systemd::{Systemd as _, SystemdError};
use tokio::time::sleep;

use super::fleet::{AGENT_TTL, Fleet, quiet, service, unit};
use super::weather::Sky;

const A: &str = "a.service";

const LASTING: Behaviour = Behaviour {
    start: Duration::from_millis(20),
    result: Outcome::Active,
    stop: Duration::from_millis(10),
    crash_after: None,
    restart_after: None,
};

async fn report(fleet: &Fleet) -> UnitReport {
    fleet.unit_report(&fleet.machines[0], A).await
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn unit_is_available_after_min_ready_sec_without_polling() {
    let fleet = Fleet::of(1).await;
    quiet().await;
    fleet.launch(A, service(1, "MinReadySec=600")).await;
    seconds(599).await;
    let before = fleet.machines[0].systemd.calls("states");
    let (early, revision) = (
        report(&fleet).await,
        fleet.entry(&keys::report(&fleet.machines[0].id)).await,
    );
    assert!(early.ready && !early.available, "{early:?}");
    seconds(2).await;
    let late = report(&fleet).await;
    assert!(late.available && late.failed.is_none(), "{late:?}");
    let once = fleet.machines[0].systemd.calls("states");
    assert_eq!(once, before + 1);
    let told = fleet.entry(&keys::report(&fleet.machines[0].id)).await;
    assert_ne!(told, revision);
    seconds(3600).await;
    assert_eq!(fleet.machines[0].systemd.calls("states"), once);
}

#[tokio::test(start_paused = true)]
async fn unit_without_min_ready_sec_is_available_when_ready() {
    let fleet = Fleet::of(1).await;
    quiet().await;
    fleet.launch(A, service(1, "MinReadySec=0")).await;
    sleep(Duration::from_millis(200)).await;
    let report = report(&fleet).await;
    assert!(report.ready && report.available, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn unit_with_min_ready_sec_beyond_clocks_is_never_available() {
    let fleet = Fleet::of(1).await;
    let content = service(1, "MinReadySec=18000000000000000000");
    fleet.launch(A, content).await;
    fleet.launch("b.service", service(1, "")).await;
    quiet().await;
    let report = report(&fleet).await;
    assert!(report.ready && !report.available, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn restarted_fleetd_counts_from_when_the_unit_became_active() {
    let mut fleet = Fleet::of(1).await;
    fleet.launch(A, service(1, "MinReadySec=600")).await;
    seconds(300).await;
    fleet.machines[0].kill().await;
    fleet.machines[0].start();
    seconds(299).await;
    assert!(!report(&fleet).await.available);
    seconds(2).await;
    assert!(report(&fleet).await.available);
    fleet.machines[0].kill().await;
    fleet.machines[0].start();
    seconds(1).await;
    assert!(report(&fleet).await.available);
}

/// Else a leader would take it for a machine that has nothing to lose.
#[tokio::test(start_paused = true)]
async fn fleetd_that_has_not_looked_yet_says_that_it_does_not_know() {
    let mut fleet = Fleet::of(1).await;
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    let machine = &mut fleet.machines[0];
    machine.kill().await;
    machine.systemd.set_available(false);
    machine.start();
    quiet().await;
    let told = fleet.report(&fleet.machines[0]).await.expect("told");
    assert!(told.units.is_empty());
    let why = told.unknown.expect("says why");
    assert!(why.contains("has not looked at its units yet"), "{why}");
    fleet.machines[0].systemd.set_available(true);
    seconds(11).await;
    assert!(report(&fleet).await.available);
    let told = fleet.report(&fleet.machines[0]).await.expect("told");
    assert_eq!(told.unknown, None);
}

#[tokio::test(start_paused = true)]
async fn report_names_every_unit_whatever_its_base_became() {
    let mut fleet = Fleet::of(1).await;
    let names: Vec<String> = (0..9).map(|number| format!("u{number}.service")).collect();
    for name in &names {
        fleet.launch(name, service(1, "")).await;
    }
    quiet().await;
    let id = fleet.machines[0].id.clone();
    let base = keys::report_base(&id);
    let all = async |fleet: &Fleet, count| {
        let report = fleet.report(&fleet.machines[0]).await.expect("a report");
        let available = report.units.values().filter(|unit| unit.available);
        assert_eq!(available.count(), count);
    };
    all(&fleet, 9).await;
    let written = fleet.entry(&base).await.expect("a base").modified;
    // One change leaves it as it is.
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    let after = fleet.entry(&base).await.expect("a base").modified;
    assert_eq!(after, written);
    all(&fleet, 10).await;
    let put = |value: &[u8]| Write::Put {
        key: base.clone(),
        value: value.to_vec(),
        lease: None,
    };
    let spoilt = [
        Write::Delete(base.clone()),
        put(b"{"),
        put(br#"{"format":1,"number":1,"units":{}}"#),
    ];
    for (version, write) in (2_usize..).zip(spoilt) {
        let written = fleet.store.commit(vec![], vec![write]).await;
        written.expect("written");
        let told = fleet.entry(&keys::report(&id)).await;
        let another = format!("v{version}.service");
        fleet.launch(&another, service(1, "")).await;
        quiet().await;
        assert_ne!(fleet.entry(&keys::report(&id)).await, told);
        all(&fleet, 9 + version).await;
    }
    fleet.machines[0].kill().await;
    fleet.machines[0].start();
    quiet().await;
    all(&fleet, 13).await;
}

/// With a thousand units systemd would be asked two thousand times for each update.
#[tokio::test(start_paused = true)]
async fn reload_inspects_only_units_in_another_state() {
    let fleet = Fleet::of(1).await;
    for number in 0..20 {
        let name = format!("u{number}.service");
        fleet.launch(&name, service(1, "")).await;
    }
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    let systemd = &fleet.machines[0].systemd;
    let (states, details) = (systemd.calls("states"), systemd.calls("details"));
    systemd.reload().await.expect("reloaded");
    quiet().await;
    assert!(systemd.calls("states") > states);
    assert_eq!(systemd.calls("details"), details);
    systemd.crash(&unit(A));
    systemd.reload().await.expect("reloaded");
    quiet().await;
    assert_eq!(systemd.calls("details"), details + 1);
    assert_eq!(report(&fleet).await.active, "failed");
}

/// With a thousand units that run, systemd takes a millisecond to answer for one that is down.
#[tokio::test(start_paused = true)]
async fn systemd_is_not_asked_about_a_down_unit_before_start() {
    let fleet = Fleet::of(1).await;
    let behaviour = Behaviour {
        start: Duration::from_secs(5),
        ..LASTING
    };
    let systemd = &fleet.machines[0].systemd;
    systemd.behave(&unit(A), behaviour);
    fleet.launch(A, service(1, "")).await;
    fleet.set_target(A, TargetState::Loaded).await;
    quiet().await;
    let calls = || ["states", "details"].map(|method| systemd.calls(method));
    let [states, details] = calls();
    fleet.set_target(A, TargetState::Launched).await;
    seconds(2).await;
    assert_eq!(report(&fleet).await.active, "activating");
    assert_eq!(calls(), [states + 1, details], "only after the start");
    seconds(4).await;
    assert_eq!(report(&fleet).await.active, "active");
    assert_eq!(calls(), [states + 2, details + 1]);
}

#[tokio::test(start_paused = true)]
async fn crash_before_availability_is_a_failure() {
    for (restart_after, why) in [
        (None, "failed (exit-code)"),
        (Some(Duration::from_millis(100)), "systemd restarted it"),
    ] {
        let fleet = Fleet::of(1).await;
        let behaviour = Behaviour {
            crash_after: Some(Duration::from_secs(5)),
            restart_after,
            ..LASTING
        };
        fleet.machines[0].systemd.behave(&unit(A), behaviour);
        fleet.launch(A, service(1, "MinReadySec=10")).await;
        seconds(4).await;
        assert_eq!(report(&fleet).await.failed, None);
        for _ in 0..60 {
            seconds(1).await;
            assert!(!report(&fleet).await.available);
        }
        let failed = report(&fleet).await.failed;
        assert!(
            failed.as_ref().is_some_and(|text| text.starts_with(why)),
            "{failed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn available_unit_restarted_by_systemd_has_not_failed() {
    let fleet = Fleet::of(1).await;
    let behaviour = Behaviour {
        restart_after: Some(Duration::from_secs(5)),
        ..LASTING
    };
    fleet.machines[0].systemd.behave(&unit(A), behaviour);
    fleet.launch(A, service(1, "MinReadySec=10")).await;
    // The minute in which a new end would count as a failure of the revision is over.
    seconds(80).await;
    assert!(report(&fleet).await.available);
    fleet.machines[0].systemd.crash(&unit(A));
    for (wait, ready) in [(1, false), (8, true)] {
        seconds(wait).await;
        let report = report(&fleet).await;
        assert_eq!(
            (report.ready, report.available, report.failed),
            (ready, false, None)
        );
    }
    seconds(10).await;
    assert!(report(&fleet).await.available);
}

#[tokio::test(start_paused = true)]
async fn what_systemd_or_the_disk_refuses_has_failed_with_their_words() {
    let fleet = Fleet::of(1).await;
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    let hands = fleet.machines[0].hands.clone();
    for method in ["write", "restart"] {
        let error = SystemdError::Refused(format!("no {method}"));
        hands.fail(method, &unit(A), Some(error));
        fleet.submit(A, service(2, ""), None).await;
        fleet.let_all_go().await;
        quiet().await;
        let report = report(&fleet).await;
        assert!(
            report
                .failed
                .expect("failed")
                .contains(&format!("no {method}"))
        );
        hands.fail(method, &unit(A), None);
    }
    quiet().await;
    assert_eq!(report(&fleet).await.failed, None);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_stopped_by_hand_has_ended() {
    use fleetd::systemd::Systemd as _;
    let fleet = Fleet::of(1).await;
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    let stop = fleet.machines[0].systemd.stop(&unit(A)).await;
    stop.expect("it stops");
    quiet().await;
    let report = report(&fleet).await;
    assert_eq!(
        report.failed.as_deref(),
        Some(
            "it was stopped by hand or ended by itself, and is not started again: `fleetctl restart` starts it, or `systemctl start` on that machine"
        )
    );
    assert!(!report.available);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_crashes_in_a_loop_does_not_fill_the_registry() {
    let fleet = Fleet::of(1).await;
    let behaviour = Behaviour {
        crash_after: Some(Duration::from_millis(30)),
        restart_after: Some(Duration::from_millis(100)),
        ..LASTING
    };
    fleet.machines[0].systemd.behave(&unit(A), behaviour);
    fleet.launch(A, service(1, "")).await;
    quiet().await;
    let revision = async || fleet.store.list(&[]).await.expect("lists").revision;
    let before = revision().await;
    seconds(60).await;
    let reports = revision().await - before;
    assert!(
        (30..=62).contains(&reports),
        "{reports} reports in a minute"
    );
}

#[tokio::test(start_paused = true)]
async fn short_start_is_one_report_and_long_one_is_reported_meanwhile() {
    use fleet_core::unit::TargetState;
    let fleet = Fleet::of(1).await;
    quiet().await;
    let revision = async || fleet.store.list(&[]).await.expect("lists").revision;
    let before = revision().await;
    fleet.launch(A, service(1, "MinReadySec=0")).await;
    quiet().await;
    assert_eq!(revision().await - before, 2, "the unit, and one report");
    fleet.set_target(A, TargetState::Loaded).await;
    quiet().await;
    assert_eq!(revision().await - before, 4);
    let long = Behaviour {
        start: Duration::from_secs(10),
        ..LASTING
    };
    fleet.machines[0].systemd.behave(&unit(A), long);
    fleet.set_target(A, TargetState::Launched).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(report(&fleet).await.active, "activating");
}

#[tokio::test(start_paused = true)]
async fn offline_machine_is_known_with_its_last_presence() {
    let mut fleet = Fleet::of(1).await;
    quiet().await;
    let session = fleet.session(&fleet.machines[0]).await;
    fleet.machines[0].kill().await;
    sleep(AGENT_TTL * 2).await;
    let id = fleet.machines[0].id.clone();
    assert_eq!(fleet.entry(&keys::machine(&id)).await, None);
    let known = fleet.entry(&keys::known(&id)).await.expect("known");
    let known: Known = record::decode(&known.value).expect("reads");
    assert_eq!(known.machine.session, session);
    assert_eq!(known.machine.metadata, fleet.machines[0].metadata);
    assert_eq!(known.offline_since, None);
}

/// The agent was killed with its first commit on the way; the next one's has landed when that is
/// made.
#[tokio::test(start_paused = true)]
async fn late_commit_of_earlier_session_undoes_nothing() {
    let mut fleet = Fleet::of(1).await;
    quiet().await;
    let machine = &mut fleet.machines[0];
    machine.kill().await;
    machine.weather.turn(Sky::Late);
    machine.start();
    sleep(Duration::from_secs(1)).await;
    machine.kill().await;
    machine.weather.turn(Sky::Clear);
    machine.start();
    sleep(Duration::from_secs(1)).await;
    let session = fleet.session(&fleet.machines[0]).await;
    // The lease that the late one was for ends.
    sleep(AGENT_TTL * 3).await;
    assert_eq!(fleet.session(&fleet.machines[0]).await, session);
    assert!(fleet.report(&fleet.machines[0]).await.is_some());
}

/// etcd has too much to do: each try is answered too late. A lease for each of them would be more
/// to do.
#[tokio::test(start_paused = true)]
async fn entry_without_answer_is_retried_under_the_same_lease() {
    let mut fleet = Fleet::of(1).await;
    let machine = &mut fleet.machines[0];
    machine.kill().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let presence = keys::machine(&machine.id);
    machine.weather.tell(move |(_, _, writes)| {
        for write in writes {
            if let Write::Put { key, value, .. } = write
                && *key == presence
            {
                let machine: MachineRecord = record::decode(value).expect("reads");
                let _ = tell.send(machine.session);
            }
        }
    });
    machine.weather.turn(Sky::Unanswered);
    machine.start();
    sleep(AGENT_TTL / 2).await;
    machine.weather.turn(Sky::Clear);
    sleep(AGENT_TTL).await;
    let mut sessions = Vec::new();
    while let Ok(session) = told.try_recv() {
        sessions.push(session);
    }
    assert!(sessions.len() > 3, "{sessions:?}");
    sessions.dedup();
    assert_eq!(sessions, [fleet.session(&fleet.machines[0]).await]);
}
