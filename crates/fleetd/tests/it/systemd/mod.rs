//! What fleet relies on of systemd, a function for each statement: they hold for the fake, and for
//! the real one.
//!
//! The real one is this machine's. Units are started, `/etc/systemd/system` is written to, systemd
//! and the bus are restarted: only with `FLEET_TEST_SYSTEM_BUS=1`, as root, on a machine that may
//! be played with.

mod files;
mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use files::*;
use fleet_core::unit::Content;
use fleetd::systemd::fake::Behaviour;
use fleetd::systemd::{Dirty, Ended, JobResult, Links, State, Systemd as _, SystemdError};
use futures_util::future::{join, join_all};
use host::{ETC, Host, RUN, SOON, below, shell, unit};
use tokio::time::{Instant, sleep, timeout};

const SLEEPS: &str = "[Service]\nExecStart=/bin/sleep 1000\n";
const FAILS: &str = "[Service]\nExecStart=/bin/false\n";
const ONESHOT: &str = "[Service]\nType=oneshot\nExecStart=/bin/true\n";

async fn a_unit_that_is_started_becomes_active_and_the_change_is_told(host: &Host) {
    host.link("a.service", SLEEPS).await;
    assert_eq!(host.state("a.service").await.active, "inactive");
    host.quiet().await;
    host.start("a.service").await;
    host.tells("a.service").await;
    host.becomes("a.service", "active").await;
    let state = host.state("a.service").await;
    assert_eq!((&*state.load, &*state.sub), ("loaded", "running"));
    let details = host.details("a.service").await;
    assert!(
        details.started() && details.since > 1_500_000_000_000,
        "{details:?}"
    );
    assert_eq!((&*details.result, details.restarts), ("success", 0));
    host.remove(&["a.service"]).await;
}

async fn a_unit_that_is_linked_has_not_been_started(host: &Host) {
    host.link("a.service", SLEEPS).await;
    let details = host.details("a.service").await;
    assert!(!details.started(), "{details:?}");
    host.remove(&["a.service"]).await;
}

async fn a_unit_that_is_stopped_becomes_inactive(host: &Host) {
    host.run("a.service", SLEEPS).await;
    host.systemd()
        .stop(&unit("a.service"))
        .await
        .expect("asked");
    host.becomes("a.service", "inactive").await;
    assert_eq!(host.state("a.service").await.job, None);
    host.remove(&["a.service"]).await;
}

async fn a_restart_is_a_new_run(host: &Host) {
    host.run("a.service", SLEEPS).await;
    let before = host.details("a.service").await;
    sleep(Duration::from_millis(20)).await;
    host.quiet().await;
    host.restart("a.service").await;
    host.tells("a.service").await;
    host.becomes("a.service", "active").await;
    let after = host.details("a.service").await;
    assert!(after.since > before.since, "{before:?} {after:?}");
    host.remove(&["a.service"]).await;
}

async fn a_crash_is_told(host: &Host) {
    host.run("a.service", SLEEPS).await;
    host.quiet().await;
    let crash = Instant::now();
    match host {
        Host::Fake(fake) => fake.crash(&unit("a.service")),
        Host::Real(_) => shell("systemctl kill --signal=KILL a.service"),
    }
    host.tells("a.service").await;
    println!("a crash was told after {:?}", crash.elapsed());
    host.becomes("a.service", "failed").await;
    host.remove(&["a.service"]).await;
}

async fn it_is_told_since_when_a_unit_is_active(host: &Host) {
    let before = Instant::now();
    host.run("a.service", SLEEPS).await;
    let first = host.details("a.service").await.active_since;
    let first = first.expect("it is told");
    assert!(before <= first && first <= Instant::now());
    sleep(Duration::from_millis(20)).await;
    host.quiet().await;
    host.restart("a.service").await;
    host.tells("a.service").await;
    host.becomes("a.service", "active").await;
    let second = host.details("a.service").await.active_since;
    assert!(second > Some(first));
    host.remove(&["a.service"]).await;
}

async fn a_restart_ends_a_loop_of_crashes_and_counts_from_there(host: &Host) {
    let crashes =
        format!("{FAILS}Restart=on-failure\nRestartSec=300ms\n[Unit]\nStartLimitIntervalSec=0\n");
    host.link("a.service", &crashes).await;
    host.start("a.service").await;
    let crashed = async {
        while host.details("a.service").await.restarts < 2 {
            host.state("a.service").await;
            host.systemd().changed().await;
        }
    };
    timeout(SOON, crashed).await.expect("it is restarted");
    host.write("a.service", &crashes.replace(FAILS, SLEEPS))
        .await;
    host.reload().await;
    host.restart("a.service").await;
    host.becomes("a.service", "active").await;
    assert_eq!(host.details("a.service").await.restarts, 0);
    host.remove(&["a.service"]).await;
}

async fn systemds_limit_of_starts_is_not_for_those_that_are_asked_for(host: &Host) {
    let limited = format!("{SLEEPS}[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1000\n");
    host.run("a.service", &limited).await;
    for _ in 0..4 {
        host.quiet().await;
        host.restart("a.service").await;
        host.tells("a.service").await;
        host.becomes("a.service", "active").await;
    }
    host.quiet().await;
    assert_eq!(host.state("a.service").await.active, "active");
    host.remove(&["a.service"]).await;
}

async fn a_unit_that_fails_is_failed_until_it_is_removed(host: &Host) {
    host.link("a.service", FAILS).await;
    host.start("a.service").await;
    host.becomes("a.service", "failed").await;
    let details = host.details("a.service").await;
    assert_eq!(details.result, "exit-code");
    host.remove(&["a.service"]).await;
    assert_eq!(host.state("a.service").await, State::not_found());
}

async fn a_oneshot_that_is_done_is_inactive_or_remains(host: &Host) {
    host.link("a.service", ONESHOT).await;
    host.start("a.service").await;
    sleep(Duration::from_millis(300)).await;
    host.becomes("a.service", "inactive").await;
    assert_eq!(host.state("a.service").await.sub, "dead");
    let details = host.details("a.service").await;
    assert!(!details.started(), "systemd forgets it: {details:?}");
    assert_eq!(details.result, "success", "but not that");
    host.run("b.service", &format!("{ONESHOT}RemainAfterExit=yes\n"))
        .await;
    assert_eq!(host.state("b.service").await.sub, "exited");
    host.remove(&["a.service", "b.service"]).await;
}

async fn a_start_that_conditions_do_not_allow_is_remembered_until_the_next(host: &Host) {
    const NEVER: &str = "[Unit]\nConditionPathExists=!/\n";
    host.link("a.service", &format!("{NEVER}{SLEEPS}")).await;
    assert!(!host.details("a.service").await.skipped, "nobody looked");
    host.start("a.service").await;
    sleep(Duration::from_millis(300)).await;
    let details = host.details("a.service").await;
    assert!(details.skipped && !details.started(), "{details:?}");
    assert_eq!(host.state("a.service").await.active, "inactive");
    host.link("a.service", SLEEPS).await;
    host.reload().await;
    host.restart("a.service").await;
    host.becomes("a.service", "active").await;
    assert!(!host.details("a.service").await.skipped);
    host.remove(&["a.service"]).await;
    assert_eq!(host.state("a.service").await.load, "not-found");
}

/// systemd forgets such a unit at once: nothing but the end of its job tells it from a oneshot that
/// is done.
async fn a_start_that_is_not_done_says_why(host: &Host) {
    let requires = "[Unit]\nRequires=never.service\nAfter=never.service\n";
    if let Host::Real(_) = host {
        std::fs::write(
            format!("{ETC}/never.service"),
            FAILS.replace("[Service]", "[Service]\nType=oneshot"),
        )
        .expect("written");
    }
    for (unit, result) in [
        ("[Unit]\nAssertPathExists=!/\n", JobResult::Assert),
        (requires, JobResult::Dependency),
        ("", JobResult::Done),
    ] {
        host.link("a.service", &format!("{unit}{ONESHOT}")).await;
        host.start("a.service").await;
        let ended = host.ends("a.service").await;
        assert_eq!(
            ended,
            Ended {
                was_stop: false,
                result
            },
            "{unit}"
        );
        assert_eq!(host.state("a.service").await.active, "inactive");
        host.remove(&["a.service"]).await;
    }
    if let Host::Real(_) = host {
        std::fs::remove_file(format!("{ETC}/never.service")).expect("removed");
    }
}

async fn a_command_that_is_a_condition_skips_a_start(host: &Host) {
    for service in [SLEEPS, ONESHOT] {
        host.link("a.service", &format!("{service}ExecCondition=/bin/false\n"))
            .await;
        host.start("a.service").await;
        assert_eq!(host.ends("a.service").await.result, JobResult::Done);
        host.becomes("a.service", "inactive").await;
        let details = host.details("a.service").await;
        assert!(details.skipped, "{details:?}");
        host.remove(&["a.service"]).await;
    }
}

async fn a_removed_unit_that_is_wanted_stays_until_a_reload(host: &Host) {
    host.link("a.service", ONESHOT).await;
    host.run("a.target", "[Unit]\nWants=a.service\n").await;
    sleep(Duration::from_millis(300)).await;
    if let Host::Fake(fake) = host {
        fake.hold(&unit("a.service"));
    }
    host.remove(&["a.service"]).await;
    assert_eq!(host.state("a.service").await.load, "loaded");
    host.reload().await;
    assert_eq!(host.state("a.service").await, State::not_found());
    host.remove(&["a.target"]).await;
}

async fn a_socket_is_not_started_while_its_service_runs(host: &Host) {
    let socket = "[Socket]\nListenStream=/run/a.sock\nRemoveOnStop=yes\n";
    host.link("a.service", SLEEPS).await;
    host.run("a.socket", socket).await;
    host.start("a.service").await;
    host.becomes("a.service", "active").await;
    host.restart("a.socket").await;
    let ended = host.ends("a.socket").await;
    assert_eq!(ended.result, JobResult::Failed);
    host.systemd()
        .stop(&unit("a.service"))
        .await
        .expect("asked");
    host.becomes("a.service", "inactive").await;
    host.start("a.socket").await;
    host.becomes("a.socket", "active").await;
    host.remove(&["a.socket", "a.service"]).await;
}

async fn what_starts_a_unit_is_not_started_without_it(host: &Host) {
    host.link("a.timer", "[Timer]\nOnCalendar=daily\n").await;
    let _ = host.systemd().start(&unit("a.timer")).await;
    sleep(Duration::from_millis(300)).await;
    assert_ne!(host.state("a.timer").await.active, "active");
    host.link("a.service", SLEEPS).await;
    host.start("a.timer").await;
    host.becomes("a.timer", "active").await;
    host.remove(&["a.timer", "a.service"]).await;
}

async fn fifty_units_that_are_started_at_once_all_become_active(host: &Host) {
    let names: Vec<String> = (0..50).map(|n| format!("many-{n}.service")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let begin = Instant::now();
    for name in &names {
        host.link(name, SLEEPS).await;
    }
    let linked = begin.elapsed();
    join_all(names.iter().map(|name| host.start(name))).await;
    let started = begin.elapsed();
    let mut reads = 0;
    let all = async {
        while !host
            .states(&names)
            .await
            .values()
            .all(|state| state.active == "active")
        {
            reads += 1;
            host.systemd().changed().await;
        }
    };
    timeout(SOON, all).await.expect("all become active");
    let active = begin.elapsed();
    println!(
        "50 units: linked after {linked:?}, started {started:?}, active {active:?}; {reads} reads"
    );
    host.remove(&names).await;
    println!("and removed after {:?}", begin.elapsed());
}

async fn units_that_hang_in_their_start_do_not_hold_up_others(host: &Host) {
    let hangs = "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n";
    let names: Vec<String> = (0..20).map(|n| format!("hang-{n}.service")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        host.link(name, hangs).await;
        if let Host::Fake(fake) = host {
            let behaviour = Behaviour::of(&Content::from(hangs));
            let start = Duration::from_secs(1000);
            fake.behave(&unit(name), Behaviour { start, ..behaviour });
        }
    }
    let begin = Instant::now();
    join_all(names.iter().map(|name| host.start(name))).await;
    host.run("a.service", SLEEPS).await;
    println!("behind 20 that hang: active after {:?}", begin.elapsed());
    assert_eq!(host.state(names[0]).await.job.as_deref(), Some("start"));
    host.remove(&names).await;
    host.remove(&["a.service"]).await;
}

async fn a_machine_where_nothing_happens_is_quiet(host: &Host) {
    host.link("idle.service", SLEEPS).await;
    host.run("a.service", SLEEPS).await;
    let (idle, all) = (
        "idle.service",
        ["idle.service", "a.service", "none.service"],
    );
    host.quiet().await;
    // Looking must not make what is looked for: systemd loads a unit only to answer, and drops it
    // again.
    host.states(&all).await;
    host.details(idle).await;
    host.foreign(idle).await;
    let told = timeout(Duration::from_secs(2), host.systemd().changed()).await;
    assert!(told.is_err(), "told {told:?}");
    host.remove(&["idle.service", "a.service"]).await;
}

async fn every_kind_becomes_active(host: &Host) {
    let units = [
        ("kind.target", "[Unit]\nDescription=x\n", "active"),
        ("kind.timer", "[Timer]\nOnActiveSec=1000\n", "waiting"),
        ("kind.path", "[Path]\nPathExists=/run/never\n", "waiting"),
        (
            "kind.socket",
            "[Socket]\nListenStream=/run/kind.sock\nRemoveOnStop=yes\n",
            "listening",
        ),
        (
            "run-kind.mount",
            "[Mount]\nWhat=tmpfs\nWhere=/run/kind\nType=tmpfs\n",
            "mounted",
        ),
        ("kind.slice", "[Slice]\nTasksMax=100\n", "active"),
    ];
    host.link("kind.service", SLEEPS).await;
    for (name, content, sub) in units {
        assert_eq!(host.foreign(name).await, None, "{name}");
        host.run(name, content).await;
        assert_eq!(host.state(name).await.sub, sub);
        let details = host.details(name).await;
        assert!(details.started(), "{name} {details:?}");
        assert_eq!(host.foreign(name).await, None, "{name}");
    }
    host.remove(&units.map(|(name, ..)| name)).await;
    host.remove(&["kind.service"]).await;
}

async fn units_run_on_and_changes_are_told_when_systemd_or_the_bus_was_away(host: &Host) {
    host.run("a.service", SLEEPS).await;
    host.quiet().await;
    for away in [
        "systemctl daemon-reexec",
        "systemctl restart dbus.service",
        "systemctl daemon-reload",
    ] {
        match host {
            Host::Fake(fake) => {
                fake.set_available(false);
                let refused = fake.states(&BTreeSet::from([unit("a.service")])).await;
                assert!(
                    matches!(refused, Err(SystemdError::Unavailable(_))),
                    "{refused:?}"
                );
                fake.set_available(true);
            }
            Host::Real(_) => shell(away),
        }
        let gone = Instant::now();
        let all = async { while let Dirty::Units(_) = host.systemd().changed().await {} };
        timeout(SOON, all)
            .await
            .expect("told to look at everything");
        println!("back {:?} after {away}", gone.elapsed());
        // It may be told of more than one cause; then the calls work, and so do the signals.
        host.quiet().await;
        assert_eq!(host.state("a.service").await.active, "active");
        host.restart("a.service").await;
        host.tells("a.service").await;
        host.becomes("a.service", "active").await;
        host.quiet().await;
    }
    host.remove(&["a.service"]).await;
}

macro_rules! statements {
    ($($statement:ident,)*) => {
        mod fake {
            $(#[test] fn $statement() { crate::systemd::host::on_fake(super::$statement); })*
        }
        mod real {
            $(#[test] fn $statement() { crate::systemd::host::on_real(super::$statement); })*
        }
    };
}

statements! {
    a_unit_that_is_started_becomes_active_and_the_change_is_told,
    a_unit_that_is_linked_has_not_been_started,
    a_unit_that_is_stopped_becomes_inactive,
    a_restart_is_a_new_run,
    a_crash_is_told,
    it_is_told_since_when_a_unit_is_active,
    a_restart_ends_a_loop_of_crashes_and_counts_from_there,
    systemds_limit_of_starts_is_not_for_those_that_are_asked_for,
    a_unit_that_fails_is_failed_until_it_is_removed,
    a_oneshot_that_is_done_is_inactive_or_remains,
    a_start_that_conditions_do_not_allow_is_remembered_until_the_next,
    a_start_that_is_not_done_says_why,
    a_command_that_is_a_condition_skips_a_start,
    a_removed_unit_that_is_wanted_stays_until_a_reload,
    a_socket_is_not_started_while_its_service_runs,
    what_starts_a_unit_is_not_started_without_it,
    fifty_units_that_are_started_at_once_all_become_active,
    units_that_hang_in_their_start_do_not_hold_up_others,
    a_machine_where_nothing_happens_is_quiet,
    every_kind_becomes_active,
    units_run_on_and_changes_are_told_when_systemd_or_the_bus_was_away,
    a_changed_file_counts_after_a_reload_and_not_before,
    removal_leaves_nothing,
    names_that_systemd_does_not_know_are_not_found_and_harm_no_others,
    of_links_that_are_asked_for_at_once_one_that_cannot_be_made_is_in_nobodys_way,
    install_sections_are_linked_and_unlinked,
    units_of_others_are_told,
    a_link_never_replaces_anothers,
    a_template_is_loaded_while_it_is_linked,
}
