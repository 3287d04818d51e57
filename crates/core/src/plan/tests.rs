//! Plans as tables: what is wanted and seen, and what follows.

mod files;
mod laws;

use std::time::Duration;

use super::*;

fn name(text: &str) -> UnitName {
    UnitName::parse(text).expect("valid")
}

/// `x` runs /x, `x#` has a comment besides, `x [Install]` an install section.
fn file(text: &str) -> Content {
    let program = text
        .trim_end_matches("[Install]")
        .trim_end_matches(['#', ' ']);
    let mut file = format!("[Service]\nExecStart=/{program}\n");
    if text.contains('#') {
        file += "# a comment\n";
    }
    if text.contains("[Install]") {
        file += "[Install]\nWantedBy=multi-user.target\n";
    }
    Content::from(&*file)
}

fn want(revision: u64, content: &str, launch: bool) -> Desired {
    Desired {
        revision,
        content: file(content),
        process: content.trim_end_matches('#').to_owned(),
        install: content.contains("[Install]"),
        launch,
        excludes: BTreeSet::new(),
        created: 1,
        min_ready: Duration::ZERO,
        deferred: false,
        leaving: false,
        grant: 0,
    }
}

fn state(active: &str, job: Option<&str>) -> State {
    State {
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: String::new(),
        job: job.map(str::to_owned),
    }
}

fn seen(revision: u64, content: &str, launched: Option<&str>, active: &str) -> Observed {
    Observed {
        file: Some(file(content)),
        linked: true,
        mark: Some(Mark {
            revision,
            launched: launched.map(str::to_owned),
            installed: false,
            unread: false,
            ..Mark::default()
        }),
        state: state(active, None),
        foreign: None,
        run: String::new(),
        members: BTreeSet::new(),
    }
}

#[test]
fn links_are_re_created_where_systemd_knows_no_file() {
    let links = |mark: Option<bool>, load: &str| {
        let mut it = seen(1, "old", None, "inactive");
        it.mark = mark.map(|installed| Mark {
            revision: 1,
            launched: None,
            installed,
            unread: false,
            ..Mark::default()
        });
        it.state.load = load.to_owned();
        let unit = name("a.service");
        let desired = BTreeMap::from([(unit.clone(), want(2, "new", false))]);
        let plan = plan([&unit], &desired, &BTreeMap::from([(unit.clone(), it)]));
        let links = plan.tasks.into_iter().find_map(|task| match task.action {
            Action::Link(links) => Some(links.anew),
            _ => None,
        });
        links.expect("a link")
    };
    assert!(!links(Some(false), "loaded"));
    assert!(links(Some(true), "loaded"));
    assert!(links(Some(false), "not-found"));
    assert!(links(None, "loaded"));
    let before: Mark = serde_json::from_str(r#"{"revision":1,"launched":null}"#).expect("a mark");
    assert!(before.installed);
}

/// For every unit there is.
fn plan_all(
    desired: &BTreeMap<UnitName, Desired>,
    observed: &BTreeMap<UnitName, Observed>,
) -> Plan {
    let names: BTreeSet<&UnitName> = desired.keys().chain(observed.keys()).collect();
    plan(names, desired, observed)
}

fn show(desired: &[(&str, Desired)], observed: &[(&str, Observed)]) -> String {
    let desired = desired
        .iter()
        .map(|(unit, want)| (name(unit), want.clone()));
    let observed = observed
        .iter()
        .map(|(unit, seen)| (name(unit), seen.clone()));
    let plan = plan_all(&desired.collect(), &observed.collect());
    let mut text: Vec<String> = plan.tasks.iter().map(Task::to_string).collect();
    text.extend(plan.waits.iter().map(|(u, why)| format!("wait {u}: {why}")));
    text.extend(
        plan.refused
            .iter()
            .map(|(u, why)| format!("refuse {u}: {why}")),
    );
    text.join("\n")
}

#[test]
fn a_new_unit_is_written_linked_and_started_without_a_reload() {
    insta::assert_snapshot!(show(&[("a.service", want(1, "x", true))], &[]), @r"
    write a.service: revision 1 belongs on this machine
    link a.service: systemd must know its file
    start a.service: it should be launched
    ");
}

#[test]
fn a_loaded_unit_is_not_started() {
    insta::assert_snapshot!(show(&[("a.service", want(1, "x [Install]", false))], &[]), @r"
    write a.service: revision 1 belongs on this machine
    enable a.service: systemd must know its file
    ");
}

#[test]
fn a_unit_that_was_started_once_is_left_to_systemd() {
    for active in ["active", "failed", "inactive", "activating", "deactivating"] {
        let desired = [("a.service", want(1, "x", true))];
        assert_eq!(
            show(&desired, &[("a.service", seen(1, "x", Some("x"), active))]),
            ""
        );
    }
}

#[test]
fn an_update_is_one_reload_for_all_units_and_a_restart_each() {
    let desired = [
        ("a.service", want(2, "y", true)),
        ("b.service", want(5, "z", true)),
    ];
    let observed = [
        ("a.service", seen(1, "x", Some("x"), "active")),
        ("b.service", seen(4, "x", Some("x"), "failed")),
    ];
    insta::assert_snapshot!(show(&desired, &observed), @r"
    write a.service: its file is not that of revision 2
    write b.service: its file is not that of revision 5
    link a.service: systemd must know its file
    link b.service: systemd must know its file
    reload: systemd has read older files of a.service, b.service
    restart a.service: it runs an older revision than 2
    restart b.service: it runs an older revision than 5
    ");
}

#[test]
fn an_update_that_the_process_does_not_see_restarts_nothing() {
    let desired = [("a.service", want(2, "x#", true))];
    let seen = seen(1, "x", Some("x"), "active");
    // Not even a reload: systemd would look at all units of the host again.
    insta::assert_snapshot!(show(&desired, &[("a.service", seen)]), @"keep a.service: systemd reads the same in revision 2");
}

/// What systemd says of the unit, as far as it matters here.
fn of(mut seen: Observed, sub: &str, run: &str) -> Observed {
    seen.state.sub = sub.to_owned();
    seen.run = run.to_owned();
    seen
}

#[test]
fn a_removed_unit_that_systemd_has_is_reloaded_and_stopped() {
    let mut unit = seen(1, "x", None, "inactive");
    unit.file = None;
    unit.linked = false;
    unit.mark = Some(Mark {
        unread: true,
        ..Mark::default()
    });
    let show = |unit: &Observed| show(&[], &[("a.service", unit.clone())]);
    insta::assert_snapshot!(show(&unit), @"reload: systemd has read older files of a.service");
    // Its timer was faster.
    unit.state = state("active", None);
    insta::assert_snapshot!(show(&unit), @"stop a.service: it does not belong on this machine");
    unit.state = State::not_found();
    insta::assert_snapshot!(show(&unit), @"forget a.service: it does not belong on this machine");
}

#[test]
fn a_unit_waits_for_a_rival_that_the_registry_has_forgotten() {
    let mut old = seen(1, "x", Some("x"), "active");
    old.file = Some(Content::from("[X-Fleet]\nConflicts=new*\n"));
    let desired = [("new.service", want(1, "x", true))];
    insta::assert_snapshot!(show(&desired, &[("old.service", old.clone())]), @r"
    stop old.service: it does not belong on this machine
    write new.service: revision 1 belongs on this machine
    link new.service: systemd must know its file
    wait new.service: old.service conflicts with it and has not stopped yet
    ");
    old.state = state("inactive", None);
    insta::assert_snapshot!(show(&desired, &[("old.service", old)]), @r"
    remove old.service: it does not belong on this machine
    write new.service: revision 1 belongs on this machine
    link new.service: systemd must know its file
    start new.service: it should be launched
    ");
}

#[test]
fn every_kind_takes_an_update_in_its_own_way() {
    let update = |unit: &str, sub: &str, others: &[(&str, Observed)]| {
        let desired = [(unit, want(2, "y", true))];
        let own = of(seen(1, "x", Some("x"), "active"), sub, "r");
        let mut observed = vec![(unit, own)];
        observed.extend(others.iter().cloned());
        let plan = show(&desired, &observed);
        let lines = plan.lines().filter(|line| {
            !["write", "link", "reload"]
                .iter()
                .any(|verb| line.starts_with(verb))
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let service = |active: &str| seen(1, "x", None, active);
    insta::assert_snapshot!(update("a.slice", "active", &[]), @"keep a.slice: a reload has applied its file");
    insta::assert_snapshot!(update("a.target", "active", &[]), @"start a.target: it runs an older revision than 2");
    insta::assert_snapshot!(update("a.timer", "waiting", &[]), @"keep a.timer: a reload has applied its times");
    insta::assert_snapshot!(update("a.timer", "elapsed", &[]), @"restart a.timer: it runs an older revision than 2");
    insta::assert_snapshot!(update("a.path", "waiting", &[]), @"restart a.path: it runs an older revision than 2");
    insta::assert_snapshot!(update("a.mount", "mounted", &[]), @"restart a.mount: it runs an older revision than 2");
    insta::assert_snapshot!(update("a.socket", "listening", &[("a.service", service("inactive"))]), @r"
    remove a.service: it does not belong on this machine
    restart a.socket: it runs an older revision than 2
    ");
    let mut theirs = unseen();
    theirs.state = state("active", None);
    insta::assert_snapshot!(update("a.socket", "running", &[("a.service", theirs)]), @"refuse a.socket: its service a.service runs, and is not fleet's: the socket starts once that is stopped");
}

#[test]
fn a_socket_restarts_with_its_service() {
    let desired = [
        ("a.service", want(1, "x", true)),
        ("a.socket", want(2, "y", true)),
    ];
    let socket = of(seen(2, "y", Some("x"), "active"), "running", "r");
    let service = seen(1, "x", Some("x"), "active");
    let show = |service: &Observed| {
        show(
            &desired,
            &[("a.socket", socket.clone()), ("a.service", service.clone())],
        )
    };
    insta::assert_snapshot!(show(&service), @r"
    stop a.service: a.socket is to start, which systemd refuses while it runs
    stop a.socket: it runs an older revision than 2
    wait a.socket: a.service has not stopped yet
    ");
    let mut down = seen(2, "y", None, "inactive");
    down.mark.as_mut().expect("marked").launched = None;
    let both = [
        ("a.socket", down),
        ("a.service", seen(1, "x", None, "inactive")),
    ];
    insta::assert_snapshot!(super::tests::show(&desired, &both), @r"
    start a.socket: it should be launched
    start a.service: it should be launched
    ");
}

#[test]
fn what_starts_a_unit_that_is_not_here_waits_for_it() {
    let desired = [("a.timer", want(1, "x", true))];
    let observed = [("a.service", unseen())];
    insta::assert_snapshot!(show(&desired, &observed), @r"
    write a.timer: revision 1 belongs on this machine
    link a.timer: systemd must know its file
    refuse a.timer: a.service, which it starts, is not on this machine: it is started when that is there
    ");
    let both = [("a.service", want(1, "x", false)), desired[0].clone()];
    assert!(show(&both, &observed).contains("start a.timer"));
}

#[test]
fn a_slice_that_is_not_empty_is_never_stopped() {
    let mut slice = seen(1, "x", Some("x"), "active");
    slice.members = BTreeSet::from(["local.service".to_owned()]);
    insta::assert_snapshot!(show(&[], &[("a.slice", slice)]), @"remove a.slice: it does not belong on this machine; systemd keeps it while local.service runs in it");
}

#[test]
fn a_run_older_than_its_file_is_restarted_at_its_launch() {
    let mut unit = of(seen(2, "y", None, "active"), "running", "r");
    let earlier = |process: &str| {
        Some(Run {
            id: "r".to_owned(),
            revision: 1,
            process: process.to_owned(),
        })
    };
    let desired = [("a.service", want(2, "y", true))];
    unit.mark.as_mut().expect("marked").earlier = earlier("x");
    insta::assert_snapshot!(show(&desired, &[("a.service", unit.clone())]), @"restart a.service: it runs revision 1 already");
    unit.run = "another".to_owned();
    insta::assert_snapshot!(show(&desired, &[("a.service", unit.clone())]), @"start a.service: it should be launched");
    // The restart to another revision failed, and what is wanted now never stopped.
    unit.run = "r".to_owned();
    unit.mark.as_mut().expect("marked").launched = Some("z".to_owned());
    unit.mark.as_mut().expect("marked").earlier = earlier("y");
    insta::assert_snapshot!(show(&desired, &[("a.service", unit)]), @"keep a.service: it still runs that revision");
}

#[test]
fn a_start_that_found_an_older_run_is_followed_by_a_restart() {
    let mut unit = of(seen(2, "y", Some("y"), "active"), "running", "r");
    unit.mark.as_mut().expect("marked").earlier = Some(Run {
        id: "r".to_owned(),
        revision: 1,
        process: "x".to_owned(),
    });
    let desired = [("a.service", want(2, "y", true))];
    insta::assert_snapshot!(show(&desired, &[("a.service", unit.clone())]), @"restart a.service: it still runs revision 1");
    unit.state.job = Some("restart".to_owned());
    assert_eq!(show(&desired, &[("a.service", unit)]), "");
}

#[test]
fn a_unit_that_was_destroyed_and_made_again_is_a_new_one() {
    let mut unit = seen(1, "x", Some("x"), "active");
    unit.mark.as_mut().expect("marked").created = 7;
    let mut again = want(1, "x", true);
    again.created = 9;
    insta::assert_snapshot!(show(&[("a.service", again)], &[("a.service", unit)]), @"restart a.service: it was destroyed and made again");
}

#[test]
fn stopping_a_unit_keeps_its_file() {
    let desired = [("a.service", want(1, "x", false))];
    insta::assert_snapshot!(show(&desired, &[("a.service", seen(1, "x", Some("x"), "active"))]), @"stop a.service: it should be loaded, not launched");
}

#[test]
fn a_loaded_unit_that_its_socket_started_is_left_running() {
    let desired = [("a.service", want(1, "x", false))];
    assert_eq!(
        show(&desired, &[("a.service", seen(1, "x", None, "active"))]),
        ""
    );
}

#[test]
fn an_unwanted_unit_is_stopped_then_awaited_then_removed() {
    let mut unit = seen(1, "x", Some("x"), "active");
    insta::assert_snapshot!(show(&[], &[("a.service", unit.clone())]), @"stop a.service: it does not belong on this machine");
    unit.state = state("deactivating", Some("stop"));
    insta::assert_snapshot!(show(&[], &[("a.service", unit.clone())]), @"wait a.service: it does not belong on this machine, and goes once it has stopped");
    unit.state = state("inactive", None);
    insta::assert_snapshot!(show(&[], &[("a.service", unit)]), @"remove a.service: it does not belong on this machine");
}

#[test]
fn a_unit_waits_until_what_it_conflicts_with_has_stopped() {
    let mut new = want(1, "x", true);
    new.excludes = BTreeSet::from([name("old.service")]);
    let desired = [("new.service", new)];
    insta::assert_snapshot!(show(&desired, &[("old.service", seen(1, "x", Some("x"), "active"))]), @r"
    stop old.service: it does not belong on this machine
    write new.service: revision 1 belongs on this machine
    link new.service: systemd must know its file
    wait new.service: old.service conflicts with it and has not stopped yet
    ");
}

#[test]
fn a_unit_waits_until_a_rival_that_is_to_leave_has_stopped() {
    let beside = |other: &str, leaving: bool| Desired {
        excludes: BTreeSet::from([name(other)]),
        leaving,
        ..want(1, "x", true)
    };
    let desired = [
        ("a.service", beside("b.service", false)),
        ("b.service", beside("a.service", true)),
    ];
    let up = || seen(1, "x", Some("x"), "active");
    let idle = || seen(1, "x", None, "inactive");
    let observed = [("a.service", idle()), ("b.service", up())];
    insta::assert_snapshot!(show(&desired, &observed), @"wait a.service: b.service conflicts with it and has not stopped yet");
    // They ran beside each other before one excluded the other.
    let observed = [("a.service", up()), ("b.service", up())];
    assert_eq!(show(&desired, &observed), "");
    // After a reboot the one that stays is started.
    let observed = [("a.service", idle()), ("b.service", idle())];
    insta::assert_snapshot!(show(&desired, &observed), @r"
    start a.service: it should be launched
    wait b.service: a.service conflicts with it and takes its place
    ");
    let alone = [("b.service", beside("a.service", true))];
    assert_eq!(
        show(&alone, &[("b.service", idle())]),
        "start b.service: it should be launched"
    );
}
