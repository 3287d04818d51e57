//! The states that systemd reports for units, and their meaning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::unit::{Content, ServiceType, UnitFile, UnitKind};

/// Ends what is said of where another's unit is, if that is a mask: an administrator's no to every
/// unit of the name.
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

    /// Whether it lives on in systemd, which has no file of it any more. It looks for one in a
    /// reload only.
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

    /// Whether a timer takes new times with a reload: one that has elapsed for good does not look
    /// at them again.
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

/// How long a unit stays on trial once it is available: a run that ends sooner has failed. Longer
/// where `MinReadySec=` is.
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
/// `result` is systemd's `Result` of its last run; `service` matters for services only. `skipped`:
/// its own conditions kept it from starting, and so it does what its file asks.
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
        // A job that ends this run may wait: what is active then is the run before, perhaps of the
        // revision before.
        "active" | "reloading" => !matches!(
            state.job.as_deref(),
            Some("stop" | "restart" | "try-restart")
        ),
        // `result` alone would do for a oneshot that ran; with a job pending it is that of the run
        // before.
        "inactive" if state.job.is_some() => false,
        "inactive" => {
            // systemd forgets a oneshot when it is done, and one that it never started looks the
            // same.
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
    // Whether or not the next try is on its way: a unit that ends again and again before it is
    // available does no work.
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
mod tests;
