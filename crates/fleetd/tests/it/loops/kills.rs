//! An agent killed at any moment, and started again on the same files: it starts nothing twice and
//! stops nothing.

use std::sync::{Arc, Mutex};

use fleet_core::unit::TargetState;

use super::fleet::{Fleet, quiet, service};
use super::weather::Sky;

fn count(log: &[String], line: &str) -> usize {
    log.iter().filter(|other| *other == line).count()
}

/// Does `change` with an agent that is killed `moments` later, and answers what was asked of
/// systemd, and whether the agent came that far at all.
async fn killed_after(
    fleet: &mut Fleet,
    moments: u32,
    change: impl AsyncFnOnce(&Fleet),
) -> (Vec<String>, bool) {
    fleet.take_logs();
    let hands = fleet.machines[0].hands.clone();
    hands.last(Some(moments));
    change(fleet).await;
    let stuck = tokio::select! {
        biased;
        () = hands.stuck.notified() => true,
        () = quiet() => false,
    };
    fleet.machines[0].kill().await;
    hands.last(None);
    fleet.machines[0].start();
    quiet().await;
    // What it was granted went with its session.
    fleet.let_all_go().await;
    quiet().await;
    let log = fleet.machines[0].take_log();
    fleet.has_converged().await;
    (log, stuck)
}

#[tokio::test(start_paused = true)]
async fn a_start_happens_once_wherever_the_agent_is_killed() {
    for moments in 0.. {
        let mut fleet = Fleet::of(1).await;
        quiet().await;
        let (log, stuck) = killed_after(&mut fleet, moments, async |fleet| {
            fleet.launch("a.service", service(1, "")).await;
            fleet.launch("b.service", service(1, "")).await;
        })
        .await;
        for unit in ["a", "b"] {
            let starts = count(&log, &format!("start {unit}.service"));
            assert_eq!(starts, 1, "killed after {moments}: {log:?}");
        }
        if !stuck {
            assert!(moments > 10, "the agent made {moments} calls only");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_restarts_once_wherever_the_agent_is_killed() {
    for moments in 0.. {
        let mut fleet = Fleet::of(1).await;
        fleet.launch("a.service", service(1, "")).await;
        fleet.launch("b.service", service(1, "")).await;
        quiet().await;
        let (log, stuck) = killed_after(&mut fleet, moments, async |fleet| {
            fleet.submit("a.service", service(2, ""), None).await;
            fleet.let_all_go().await;
        })
        .await;
        let restarts = count(&log, "restart a.service");
        assert_eq!(restarts, 1, "killed after {moments}: {log:?}");
        let others = log.iter().filter(|line| line.contains("b.service"));
        assert_eq!(others.count(), 0, "killed after {moments}: {log:?}");
        if !stuck {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_happens_wherever_the_agent_is_killed() {
    for moments in 0.. {
        let mut fleet = Fleet::of(1).await;
        fleet.launch("a.service", service(1, "")).await;
        fleet.launch("b.service", service(1, "")).await;
        fleet.launch("c.service", service(1, "")).await;
        quiet().await;
        let (log, stuck) = killed_after(&mut fleet, moments, async |fleet| {
            fleet.destroy("a.service").await;
            fleet.set_target("b.service", TargetState::Loaded).await;
        })
        .await;
        let others = log.iter().filter(|line| line.contains("c.service"));
        assert_eq!(others.count(), 0, "killed after {moments}: {log:?}");
        if !stuck {
            break;
        }
    }
}

/// The numbers of its revisions begin at 1 again, so that its number does not tell whether systemd
/// has read its file.
#[tokio::test(start_paused = true)]
async fn re_created_unit_runs_its_file_wherever_the_agent_is_killed() {
    for moments in 0.. {
        let mut fleet = Fleet::of(1).await;
        fleet.launch("a.service", service(1, "")).await;
        quiet().await;
        let runs = Arc::new(Mutex::new(None));
        let place = runs.clone();
        fleet.machines[0].systemd.observe(move |_, happened| {
            if happened.is_active {
                *place.lock().expect("no panic") = Some(happened.file.clone());
            }
        });
        let (log, stuck) = killed_after(&mut fleet, moments, async |fleet| {
            // It hears of both at once.
            fleet.machines[0].weather.turn(Sky::Silent);
            fleet.destroy("a.service").await;
            fleet.launch("a.service", service(2, "")).await;
            fleet.machines[0].weather.turn(Sky::Clear);
        })
        .await;
        let runs = runs.lock().expect("no panic").clone();
        assert_eq!(
            runs,
            Some(service(2, "")),
            "killed after {moments}: {log:?}"
        );
        if !stuck {
            break;
        }
    }
}
