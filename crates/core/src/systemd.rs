//! The states that systemd reports for units, and their meaning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::unit::{Content, ServiceType, UnitFile, UnitKind};

/// Ends what is said of where another's unit is, if that is a mask: an administrator's no to every unit of the name.
pub const MASKED: &str = " (masked)";

/// The state of a unit at one moment, in the words of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Load state: `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// Active state: `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    /// Sub state, such as `running`.
    pub sub: String,
    /// The kind of the job that waits or runs for it, such as `start`; none if there is no job.
    pub job: Option<String>,
}

impl State {
    /// A unit that systemd does not know.
    pub fn not_found() -> Self {
        Self {
            load: "not-found".to_owned(),
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
            job: None,
        }
    }

    /// Whether systemd has no file of it.
    pub fn is_not_found(&self) -> bool {
        self.load == "not-found"
    }

    /// Whether it lives on in systemd, which has no file of it any more. It looks for one in a reload only.
    pub fn lost_its_file(&self) -> bool {
        self.is_not_found() && (self.active != "inactive" || self.job.is_some())
    }

    /// Whether it runs, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(
            self.active.as_str(),
            "active" | "reloading" | "activating" | "refreshing" | "maintenance"
        ) || matches!(
            self.job.as_deref(),
            Some("start" | "restart" | "try-restart")
        )
    }

    /// Whether a timer takes new times with a reload: one that has elapsed for good does not look at them again.
    pub fn takes_new_times(&self) -> bool {
        self.load == "loaded" && matches!(self.sub.as_str(), "waiting" | "running")
    }

    /// Whether it does not run, or a stop is on its way, and nothing is about to start it.
    pub fn is_down_or_stopping(&self) -> bool {
        self.is_stopping() || !self.is_up()
    }

    /// Whether a stop is on its way.
    pub fn is_stopping(&self) -> bool {
        self.active == "deactivating" && !matches!(self.job.as_deref(), Some("start" | "restart"))
            || self.job.as_deref() == Some("stop")
    }
}

/// How a job ended, in systemd's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum JobResult {
    /// It did what it was to do. Of a start also that a condition kept the unit from starting.
    Done,
    /// Another job took its place.
    Canceled,
    /// `JobTimeoutSec=` was over.
    Timeout,
    /// The unit did not do it.
    Failed,
    /// A unit that it requires did not start.
    Dependency,
    /// It made no sense in the unit's state.
    Skipped,
    /// An assertion in the unit's file is not met.
    Assert,
    /// Any other word of systemd.
    Other(String),
}

impl From<String> for JobResult {
    fn from(word: String) -> Self {
        match word.as_str() {
            "done" => Self::Done,
            "canceled" => Self::Canceled,
            "timeout" => Self::Timeout,
            "failed" => Self::Failed,
            "dependency" => Self::Dependency,
            "skipped" => Self::Skipped,
            "assert" => Self::Assert,
            _ => Self::Other(word),
        }
    }
}

impl From<JobResult> for String {
    fn from(result: JobResult) -> Self {
        let word = match result {
            JobResult::Done => "done",
            JobResult::Canceled => "canceled",
            JobResult::Timeout => "timeout",
            JobResult::Failed => "failed",
            JobResult::Dependency => "dependency",
            JobResult::Skipped => "skipped",
            JobResult::Assert => "assert",
            JobResult::Other(word) => return word,
        };
        word.to_owned()
    }
}

impl JobResult {
    /// Why a start was not done, for people, with what the unit's file names as possible causes;
    /// `None` if it was done.
    pub fn why_not_started(&self, file: Option<&Content>) -> Option<String> {
        let why = match self {
            Self::Done => return None,
            Self::Canceled => "canceled: it was stopped, or another order took its place",
            Self::Timeout => "timeout: it waited longer than its JobTimeoutSec=",
            Self::Failed => {
                "failed: systemd did not start it; see `systemctl status` on that machine"
            }
            Self::Dependency => "dependency: a unit that it requires did not start",
            Self::Skipped => "skipped: systemd had nothing to do",
            Self::Assert => "assertion: an assertion in its file is not met",
            Self::Other(word) => word,
        };
        let file = file.map(|content| UnitFile::parse(content.as_bytes()));
        let causes = file.map_or_else(Vec::new, |file| self.causes(&file));
        Some(match causes.as_slice() {
            [] => format!("its start was not done: {why}"),
            causes => format!("its start was not done: {why} ({})", causes.join(", ")),
        })
    }

    /// Returns what the unit's file names as the possible cause of a start that was not done: its
    /// assertions, or the units that it requires. systemd does not report which one it was.
    fn causes(&self, file: &UnitFile) -> Vec<String> {
        let is_cause = |key: &str| match self {
            Self::Assert => key.starts_with("Assert"),
            Self::Dependency => matches!(key, "Requires" | "Requisite" | "BindsTo"),
            _ => false,
        };
        let assignments = file.assignments().iter();
        assignments
            .filter(|line| line.section == "Unit" && !line.value.is_empty() && is_cause(&line.key))
            .map(|line| format!("{}={}", line.key, line.value))
            .collect()
    }

    /// Why a stop was not done, for people; `None` if it was, or if another order took its place.
    pub fn why_not_stopped(&self) -> Option<String> {
        match self {
            Self::Done | Self::Canceled | Self::Skipped => None,
            other => Some(format!(
                "its stop was not done: {}; it may be busy, see `systemctl status` on that machine",
                String::from(other.clone())
            )),
        }
    }
}

/// A job that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether it was a stop; else it was a start or a restart.
    pub was_stop: bool,
    /// How it ended.
    pub result: JobResult,
}

/// The course of a unit since fleet last asked systemd to start it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course<'a> {
    /// Whether fleet did.
    pub launched: bool,
    /// Its present state.
    pub state: &'a State,
    /// systemd's `Result` of its last run.
    pub result: &'a str,
    /// How often systemd restarted it by itself (`NRestarts`).
    pub restarts: u32,
    /// How long it was available, if it was.
    pub was_available: Option<Trial>,
    /// Whether systemd skipped its start, because of a condition in its file.
    pub skipped: bool,
    /// How that start ended; `None` while it goes on, or if that is not known.
    pub start: Option<&'a JobResult>,
    /// The revision with which its run began, if that is older than the file in place.
    pub outdated: Option<u64>,
    /// The file in place. It names what a start may have lacked.
    pub file: Option<&'a Content>,
}

/// How long a unit stays on trial once it is available: a run that ends sooner has failed. Longer where `MinReadySec=`
/// is.
pub const TRIAL: Duration = Duration::from_secs(60);

/// What became of a unit that was available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Whether it stayed available for its whole trial.
    pub passed: bool,
    /// How often systemd had restarted it by then.
    pub restarts: u32,
}

/// Whether a unit that should be launched does what it should.
///
/// `result` is systemd's `Result` of its last run; `service` matters for services only. `skipped`: its own conditions
/// kept it from starting, and so it does what its file asks.
pub fn ready(
    kind: UnitKind,
    service: ServiceType,
    state: &State,
    result: &str,
    skipped: bool,
    start: Option<&JobResult>,
) -> bool {
    if state.load != "loaded" {
        return false;
    }
    match state.active.as_str() {
        // A job that ends this run may wait: what is active then is the run before, perhaps of the revision before.
        "active" | "reloading" => !matches!(
            state.job.as_deref(),
            Some("stop" | "restart" | "try-restart")
        ),
        // `result` alone would do for a oneshot that ran; with a job pending it is that of the run before.
        "inactive" if state.job.is_some() => false,
        "inactive" => {
            // systemd forgets a oneshot when it is done, and one that it never started looks the same.
            let was_done = start.is_none_or(|start| *start == JobResult::Done);
            skipped || was_done && ends(kind, service) && result == "success"
        }
        _ => false,
    }
}

/// Why a unit will not become ready by itself, for people; none while it may. A unit that was
/// stopped by hand counts as ended: it is not started again.
pub fn failed(kind: UnitKind, service: ServiceType, course: Course<'_>) -> Option<String> {
    let Course { state, result, .. } = course;
    if !matches!(state.load.as_str(), "loaded" | "not-found") {
        return Some(format!("systemd does not load it ({})", state.load));
    }
    if !course.launched {
        return None;
    }
    // Whether or not the next try is on its way: a unit that ends again and again before it is available does no work.
    let waits_for_restart = state.active == "activating" && state.sub.starts_with("auto-restart");
    match course.was_available {
        None if course.restarts > 0 => {
            return Some(match course.restarts {
                1 => "systemd restarted it once".to_owned(),
                times => format!("systemd restarted it {times} times"),
            });
        }
        None if waits_for_restart => {
            return Some(format!(
                "its run ended ({result}), and systemd is about to start it again"
            ));
        }
        Some(trial) if !trial.passed && (waits_for_restart || course.restarts > trial.restarts) => {
            return Some(
                "it ended soon after it became available, and systemd restarts it".to_owned(),
            );
        }
        None | Some(_) => {}
    }
    if state.job.is_some() {
        return None;
    }
    let not_started = course
        .start
        .and_then(|start| start.why_not_started(course.file));
    if let Some(revision) = course.outdated {
        let why = not_started.unwrap_or_else(|| "it was not restarted".to_owned());
        return Some(format!("it still runs revision {revision}: {why}"));
    }
    match state.active.as_str() {
        "inactive" if !course.skipped && not_started.is_some() => not_started,
        // Its own result says more than that its job failed.
        "failed" if not_started.is_some() && course.start != Some(&JobResult::Failed) => {
            not_started
        }
        "failed" if result.is_empty() => Some("failed".to_owned()),
        "failed" => Some(format!("failed ({result})")),
        "inactive" if state.load == "loaded" && !course.skipped && !ends(kind, service) => {
            Some(ENDED.to_owned())
        }
        _ => None,
    }
}

/// systemd does not report which of the two it was, and it does not matter.
const ENDED: &str = "it was stopped by hand or ended by itself, and is not started again: `fleetctl restart` starts it, or `systemctl start` on that machine";

/// Whether a unit is inactive again when it has done its work.
fn ends(kind: UnitKind, service: ServiceType) -> bool {
    kind == UnitKind::Service && service.oneshot && !service.remain_after_exit
}

#[cfg(test)]
mod tests {
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
    fn a_unit_has_failed_when_nothing_is_on_its_way_that_could_make_it_ready() {
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
}
