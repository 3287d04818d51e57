//! What states and results of systemd mean.

use super::*;

#[test]
fn a_start_not_done_names_its_causes_in_the_file() {
    let file = UnitFile::parse(
        b"[Unit]\nAssertPathExists=/a\nAssertPathExists=\nAssertFileIsExecutable=/b\n\
        Requires=c.service d.service\nBindsTo=e.mount\nAfter=f.service\n\
        [Service]\nRequires=g.service\n",
    );
    for (result, causes) in [
        (
            JobResult::Assert,
            &["AssertPathExists=/a", "AssertFileIsExecutable=/b"][..],
        ),
        (
            JobResult::Dependency,
            &["Requires=c.service d.service", "BindsTo=e.mount"],
        ),
        (JobResult::Failed, &[]),
    ] {
        assert_eq!(result.causes(&file), causes, "{result:?}");
    }
}

const LASTING: ServiceType = ServiceType {
    oneshot: false,
    remain_after_exit: false,
    proves_readiness: false,
};
const ONESHOT: ServiceType = ServiceType {
    oneshot: true,
    remain_after_exit: false,
    proves_readiness: true,
};

const REMAINS: ServiceType = ServiceType {
    remain_after_exit: true,
    ..ONESHOT
};

fn state(active: &str, job: Option<&str>) -> State {
    State {
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: String::new(),
        job: job.map(str::to_owned),
    }
}

#[test]
fn a_lasting_unit_is_ready_while_active() {
    for (active, is_ready) in [
        ("active", true),
        ("reloading", true),
        ("activating", false),
        ("deactivating", false),
        ("inactive", false),
        ("failed", false),
    ] {
        let state = state(active, None);
        assert_eq!(
            ready(UnitKind::Service, LASTING, &state, "success", false, None),
            is_ready,
            "{active}"
        );
    }
}

#[test]
fn a_oneshot_is_ready_when_it_is_done_with_success() {
    let done = state("inactive", None);
    assert!(ready(
        UnitKind::Service,
        ONESHOT,
        &done,
        "success",
        false,
        None
    ));
    assert!(!ready(
        UnitKind::Service,
        ONESHOT,
        &done,
        "exit-code",
        false,
        None
    ));
    let waiting = state("inactive", Some("start"));
    assert!(!ready(
        UnitKind::Service,
        ONESHOT,
        &waiting,
        "success",
        false,
        None
    ));
}

#[test]
fn a_unit_whose_conditions_are_not_met_does_what_its_file_asks() {
    let skipped = |kind, active, job| {
        let state = state(active, job);
        let course = Course {
            launched: true,
            state: &state,
            result: "success",
            restarts: 0,
            was_available: None,
            skipped: true,
            start: None,
            outdated: None,
            file: None,
        };
        (
            ready(kind, LASTING, &state, "success", true, None),
            failed(kind, LASTING, course),
        )
    };
    for kind in [UnitKind::Service, UnitKind::Timer, UnitKind::Socket] {
        assert_eq!(skipped(kind, "inactive", None), (true, None), "{kind:?}");
    }
    let starting = skipped(UnitKind::Service, "inactive", Some("start"));
    assert_eq!(starting, (false, None));
    assert!(skipped(UnitKind::Service, "failed", None).1.is_some());
}

#[test]
fn a_unit_whose_file_systemd_refuses_is_never_ready() {
    let mut bad = state("active", None);
    bad.load = "bad-setting".to_owned();
    assert!(!ready(
        UnitKind::Service,
        LASTING,
        &bad,
        "success",
        false,
        None
    ));
}

#[test]
fn a_unit_whose_run_is_about_to_end_is_not_ready() {
    for (job, is_ready) in [
        ("restart", false),
        ("try-restart", false),
        ("stop", false),
        ("reload", true),
    ] {
        let state = state("active", Some(job));
        let found = ready(UnitKind::Service, LASTING, &state, "success", false, None);
        assert_eq!(found, is_ready, "{job}");
    }
}

/// `restarts` above 0 are of a unit that was not available yet.
fn failure(kind: UnitKind, service: ServiceType, state: &State, restarts: u32) -> String {
    let course = Course {
        launched: true,
        state,
        result: "exit-code",
        restarts,
        was_available: None,
        skipped: false,
        start: None,
        outdated: None,
        file: None,
    };
    failed(kind, service, course).unwrap_or_else(|| "-".to_owned())
}

#[test]
fn unit_has_failed_when_nothing_can_make_it_ready() {
    use UnitKind::{Path, Service, Socket, Timer};
    for (kind, service, active, job, restarts, expected) in [
        (Service, LASTING, "failed", None, 0, "failed (exit-code)"),
        (Service, ONESHOT, "failed", None, 0, "failed (exit-code)"),
        (Service, REMAINS, "failed", None, 0, "failed (exit-code)"),
        (Socket, LASTING, "failed", None, 0, "failed (exit-code)"),
        (Service, LASTING, "failed", Some("start"), 0, "-"),
        (Service, LASTING, "inactive", None, 0, ENDED),
        (Service, REMAINS, "inactive", None, 0, ENDED),
        (Service, ONESHOT, "inactive", None, 0, "-"),
        (Timer, LASTING, "inactive", None, 0, ENDED),
        (Path, LASTING, "inactive", None, 0, ENDED),
        (Service, LASTING, "inactive", Some("start"), 0, "-"),
        (Service, LASTING, "activating", None, 0, "-"),
        (Service, ONESHOT, "activating", Some("start"), 0, "-"),
        (Service, LASTING, "deactivating", None, 0, "-"),
        (Service, LASTING, "reloading", None, 0, "-"),
        (Service, LASTING, "active", None, 0, "-"),
        (Timer, LASTING, "active", None, 0, "-"),
        (
            Service,
            LASTING,
            "activating",
            None,
            1,
            "systemd restarted it once",
        ),
        (
            Service,
            LASTING,
            "active",
            Some("restart"),
            3,
            "systemd restarted it 3 times",
        ),
    ] {
        let state = state(active, job);
        let found = failure(kind, service, &state, restarts);
        assert_eq!(found, expected, "{kind:?} {active} {job:?} {restarts}");
    }
}

#[test]
fn a_unit_that_was_available_may_be_restarted_by_systemd() {
    let course = |state, restarts| Course {
        launched: true,
        state,
        result: "success",
        restarts,
        was_available: Some(Trial {
            passed: true,
            restarts: 0,
        }),
        skipped: false,
        start: None,
        outdated: None,
        file: None,
    };
    let waits = state("activating", None);
    let ended = state("failed", None);
    let failed = |course| failed(UnitKind::Service, LASTING, course);
    assert_eq!(failed(course(&waits, 7)), None);
    assert!(failed(course(&ended, 7)).is_some());
}

#[test]
fn a_unit_that_ends_on_trial_has_failed_when_its_restart_begins() {
    let waits = State {
        sub: "auto-restart".to_owned(),
        ..state("activating", None)
    };
    let starts = state("activating", Some("start"));
    let failed = |state, restarts, was_available| {
        let course = Course {
            launched: true,
            state,
            result: "success",
            restarts,
            was_available,
            skipped: false,
            start: None,
            outdated: None,
            file: None,
        };
        failed(UnitKind::Service, LASTING, course)
    };
    let trial = |passed, restarts| Some(Trial { passed, restarts });
    for (state, restarts, was_available, has_failed) in [
        (&waits, 0, None, true),
        (&waits, 3, trial(false, 3), true),
        (&starts, 4, trial(false, 3), true),
        (&starts, 3, trial(false, 3), false),
        (&waits, 3, trial(true, 3), false),
        (&starts, 4, trial(true, 3), false),
    ] {
        let found = failed(state, restarts, was_available);
        assert_eq!(found.is_some(), has_failed, "{restarts} {was_available:?}");
    }
}

#[test]
fn a_unit_that_is_only_loaded_has_not_ended() {
    let course = Course {
        launched: false,
        state: &state("inactive", None),
        result: "success",
        restarts: 0,
        was_available: None,
        skipped: false,
        start: None,
        outdated: None,
        file: None,
    };
    assert_eq!(failed(UnitKind::Service, LASTING, course), None);
}

#[test]
fn a_unit_that_systemd_does_not_load_has_failed() {
    let mut bad = state("active", None);
    bad.load = "bad-setting".to_owned();
    let found = failure(UnitKind::Service, LASTING, &bad, 0);
    assert_eq!(found, "systemd does not load it (bad-setting)");
    // Its file is on its way there.
    let found = failure(UnitKind::Service, LASTING, &State::not_found(), 0);
    assert_eq!(found, "-");
}
