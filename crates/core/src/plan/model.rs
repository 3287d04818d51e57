//! The values of a plan: the state that a machine should have, the state that it has, and tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::systemd::State;
use crate::unit::{Content, UnitName};

/// The state of one unit that a machine should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The number of the revision.
    pub revision: u64,
    /// That revision's bytes.
    pub content: Content,
    /// The part of them that a running process depends on (`unit::process_fingerprint`).
    pub process: String,
    /// Whether they have an `[Install]` section.
    pub install: bool,
    /// Started once, or only loaded.
    pub launch: bool,
    /// Units that must not run beside it (`Conflicts` of either).
    pub excludes: BTreeSet<UnitName>,
    /// The store revision that made the unit; 0 if it was written down by a version that did not
    /// say.
    #[serde(default)]
    pub created: u64,
    /// How long it must be ready before it counts as available (`MinReadySec`).
    #[serde(default)]
    pub min_ready: Duration,
    /// Whether the registry has another revision, to which this machine may not go yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// Whether it does not belong here any more, and stays until the leader grants that it stops.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The store revision that wrote the grant which this takes into account; 0 if none.
    #[serde(default, skip_serializing_if = "crate::record::is_zero")]
    pub grant: u64,
}

/// The memory of the agent about a unit that it put in place, until the next boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The revision whose file is in place and linked.
    pub revision: u64,
    /// The process part of the revision that was started; none if it was not, or was stopped again.
    pub launched: Option<String>,
    /// Whether that file has an `[Install]` section, so that systemd has more links to it than one.
    #[serde(default = "perhaps")]
    pub installed: bool,
    /// Whether another file has taken the place of that one since, or was about to: systemd may not
    /// have read it. The number is not enough, because a unit that is created again begins with the
    /// same numbers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
    /// What a process that is started from that file depends on; `None` if an older version put it
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// The run that was there before that file; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Run>,
    /// The store revision that made the unit which was started; 0 if an older version started it.
    #[serde(default, skip_serializing_if = "crate::record::is_zero")]
    pub created: u64,
}

/// A run that began with an older file than the one in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// systemd's name of the run (`InvocationID`).
    pub id: String,
    /// The revision of the file that it began with.
    pub revision: u64,
    /// What its process depends on.
    pub process: String,
}

/// The default for marks that do not record it.
fn perhaps() -> bool {
    true
}

/// The state of one unit that a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// fleet's file.
    pub file: Option<Content>,
    /// Whether systemd's link to it is in place.
    pub linked: bool,
    /// The memory of the agent.
    pub mark: Option<Mark>,
    /// The state that systemd reports.
    pub state: State,
    /// The origin of a unit of that name that is not fleet's.
    pub foreign: Option<String>,
    /// systemd's name of its present run; empty if there is none.
    pub run: String,
    /// Units that run in it, which systemd would stop with it; of a slice only.
    pub members: BTreeSet<String>,
}

impl Observed {
    /// Whether it is a unit that fleet put there.
    pub(super) fn is_fleets(&self) -> bool {
        self.foreign.is_none() && (self.file.is_some() || self.mark.is_some())
    }

    /// Whether fleet has started it since the boot.
    pub(super) fn is_launched(&self) -> bool {
        let mark = self.mark.as_ref();
        mark.is_some_and(|mark| mark.launched.is_some())
    }

    /// The run that goes on since before the file in place.
    pub(super) fn earlier_run(&self) -> Option<&Run> {
        let earlier = self.mark.as_ref()?.earlier.as_ref()?;
        (self.state.is_up() && earlier.id == self.run).then_some(earlier)
    }

    /// The run, if it began with a file from which another process would start than the one that is
    /// wanted.
    pub fn outdated_run(&self, want: &Desired) -> Option<&Run> {
        self.earlier_run().filter(|run| run.process != want.process)
    }

    /// Whether a restart has ended one run and has not begun the other yet: that one would begin
    /// with whatever file is there by then, and be restarted for it once more.
    pub(super) fn is_between_runs(&self) -> bool {
        let is_coming = matches!(self.state.job.as_deref(), Some("start" | "restart"));
        is_coming && self.state.active == "deactivating"
    }
}

/// One thing to do. The order of the variants is the order of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Ask for a stop job.
    Stop,
    /// Take the unit's file and links away.
    Remove,
    /// Put the file in place.
    Write(Content),
    /// Make systemd's links those that the file asks for.
    Link(Links),
    /// daemon-reload, for all units at once.
    Reload,
    /// Note that systemd has what is wanted already.
    Note,
    /// Forget the unit: systemd knows it no more.
    Forget,
    /// Ask for a restart job.
    Restart,
    /// Ask for a start job of a socket: systemd refuses it once its service runs.
    Listen,
    /// Ask for a start job.
    Start,
}

/// The links of systemd to a file that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Links {
    /// Whether the file has an `[Install]` section to enable.
    pub install: bool,
    /// Whether an older file may have left links, or systemd does not know what is there. If not,
    /// and nothing is to be enabled, the one link that leads to the file is enough.
    pub anew: bool,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The action.
    pub action: Action,
    /// To which unit; none for [`Action::Reload`].
    pub unit: Option<UnitName>,
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.action {
            Action::Remove => "remove",
            Action::Write(_) => "write",
            Action::Link(Links { install: false, .. }) => "link",
            Action::Link(Links { install: true, .. }) => "enable",
            Action::Reload => "reload",
            Action::Note => "keep",
            Action::Forget => "forget",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Listen | Action::Start => "start",
        };
        match &self.unit {
            Some(unit) => write!(f, "{verb} {unit}: {}", self.reason),
            None => write!(f, "{verb}: {}", self.reason),
        }
    }
}

/// Tasks to do now, units that wait, and units that are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub tasks: Vec<Task>,
    /// Units that get their next task later, and what that waits for.
    pub waits: BTreeMap<UnitName, String>,
    /// Units that are left alone, and why.
    pub refused: BTreeMap<UnitName, String>,
}
