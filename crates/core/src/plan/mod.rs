//! From what a machine should have and what it has to the ordered tasks that close the gap.
//!
//! A plan leaves nothing to decide for the agent that carries it out, and every task has a reason.
//! It contains only what can be done now. A unit that is still stopping gets its next task in the
//! plan after it has stopped. Carrying a plan out and planning again gives the empty plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::systemd::{MASKED, State};
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
    /// The store revision that made the unit; 0 if it was written down by a version that did not say.
    #[serde(default)]
    pub created: u64,
    /// How long it must be ready before it counts as available (`MinReadySec`).
    #[serde(default)]
    pub min_ready: Duration,
    /// Whether the registry has another revision, to which this machine may not go yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// The store revision that wrote the grant which this takes into account; 0 if none.
    #[serde(default, skip_serializing_if = "crate::record::is_zero")]
    pub grant: u64,
}

/// The memory of the agent about a unit that it put in place, until the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Observed {
    /// Whether it is a unit that fleet put there.
    fn is_fleets(&self) -> bool {
        self.foreign.is_none() && (self.file.is_some() || self.mark.is_some())
    }
}

/// One thing to do. The order of the variants is the order of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Take the unit's file and links away; it does not run.
    Remove,
    /// Put the file in place.
    Write(Content),
    /// Make systemd's links those that the file asks for.
    Link(Links),
    /// daemon-reload, for all units at once.
    Reload,
    /// Ask for a stop job.
    Stop,
    /// Ask for a restart job.
    Restart,
    /// Ask for a start job.
    Start,
}

/// The links of systemd to a file that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Links {
    /// Whether the file has an `[Install]` section to enable.
    pub install: bool,
    /// Whether an older file may have left links, or systemd does not know what is there. If not, and nothing is to be enabled,
    /// the one link that leads to the file is enough.
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
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Start => "start",
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

/// The state of a unit that was never seen.
fn unseen() -> Observed {
    Observed {
        file: None,
        linked: false,
        mark: None,
        state: State::not_found(),
        foreign: None,
    }
}

/// Plans for these units of one machine; any other one stays as it is. `observed` holds them, and what they exclude, as
/// far as fleet has a file or a mark of it.
pub fn plan<'a>(
    names: impl IntoIterator<Item = &'a UnitName>,
    desired: &BTreeMap<UnitName, Desired>,
    observed: &BTreeMap<UnitName, Observed>,
) -> Plan {
    let mut plan = Plan::default();
    let mut reload = Vec::new();
    let unseen = unseen();
    for name in names {
        let seen = observed.get(name).unwrap_or(&unseen);
        let Some(want) = desired.get(name) else {
            plan.unwanted(name, seen);
            continue;
        };
        if let Some(origin) = &seen.foreign {
            plan.refused.insert(name.clone(), refusal(name, origin));
            continue;
        }
        if plan.put_in_place(name, want, seen) {
            reload.push(name.as_str());
        }
        if !want.launch {
            plan.loaded_only(name, seen);
        } else if let Some(other) = still_running(&want.excludes, desired, observed) {
            let wait = format!("{other} conflicts with it and has not stopped yet");
            plan.waits.insert(name.clone(), wait);
        } else {
            plan.launch(name, want, seen);
        }
    }
    if !reload.is_empty() {
        plan.tasks.push(Task {
            action: Action::Reload,
            unit: None,
            reason: format!("systemd has read older files of {}", reload.join(", ")),
        });
    }
    plan.tasks
        .sort_by(|a, b| (&a.action, &a.unit).cmp(&(&b.action, &b.unit)));
    plan
}

impl Plan {
    fn task(&mut self, unit: &UnitName, action: Action, reason: impl Into<String>) {
        self.tasks.push(Task {
            action,
            unit: Some(unit.clone()),
            reason: reason.into(),
        });
    }

    fn unwanted(&mut self, name: &UnitName, seen: &Observed) {
        if seen.file.is_none() && seen.mark.is_none() {
            return;
        }
        let ours = seen.foreign.is_none();
        if ours && seen.state.is_stopping() {
            self.waits.insert(
                name.clone(),
                "it does not belong on this machine, and goes once it has stopped".to_owned(),
            );
        } else if ours && seen.state.is_up() {
            self.task(name, Action::Stop, "it does not belong on this machine");
        } else {
            self.task(name, Action::Remove, "it does not belong on this machine");
        }
    }

    /// Answers whether systemd must read the file again.
    fn put_in_place(&mut self, name: &UnitName, want: &Desired, seen: &Observed) -> bool {
        let same = seen.file.as_ref() == Some(&want.content);
        let read = seen.mark.as_ref().filter(|mark| !mark.unread);
        let linked = read.map(|mark| mark.revision) == Some(want.revision);
        if !same {
            let number = want.revision;
            let reason = match &seen.file {
                // fleet writes a file before it marks it.
                None if linked => format!("somebody removed its file of revision {number}"),
                Some(_) if linked => format!("somebody changed its file of revision {number}"),
                None => format!("revision {number} belongs on this machine"),
                Some(_) => format!("its file is not that of revision {number}"),
            };
            self.task(name, Action::Write(want.content.clone()), reason);
        }
        if !same || !linked || !seen.linked || seen.state.is_not_found() {
            let is_plain = seen.mark.as_ref().is_some_and(|mark| !mark.installed);
            let action = Action::Link(Links {
                install: want.install,
                anew: !is_plain || seen.state.is_not_found(),
            });
            let reason = match same && linked && !seen.linked {
                true => "somebody removed systemd's link to its file",
                false => "systemd must know its file",
            };
            self.task(name, action, reason);
        }
        // A mark of an older revision beside the right file: written, but perhaps never read. Where a link was missing,
        // systemd may have looked for the file in that moment, and have given it up.
        seen.state.lost_its_file()
            || linked && !seen.linked
            || !seen.state.is_not_found() && (!same || !linked)
    }

    fn loaded_only(&mut self, name: &UnitName, seen: &Observed) {
        let launched = seen.mark.as_ref().and_then(|mark| mark.launched.as_ref());
        // A loaded unit may be started by its socket or timer; only what fleet started is stopped.
        if launched.is_some() {
            self.task(name, Action::Stop, "it should be loaded, not launched");
        }
    }

    fn launch(&mut self, name: &UnitName, want: &Desired, seen: &Observed) {
        match seen.mark.as_ref().and_then(|mark| mark.launched.as_ref()) {
            None => self.task(name, Action::Start, "it should be launched"),
            Some(process) if *process != want.process => {
                let reason = format!("it runs an older revision than {}", want.revision);
                self.task(name, Action::Restart, reason);
            }
            // Started once: from here on it is systemd's, whatever becomes of it.
            Some(_) => {}
        }
    }
}

/// The reason why a unit is left alone if a foreign unit has its name.
fn refusal(name: &UnitName, origin: &str) -> String {
    match origin.strip_suffix(MASKED) {
        Some(link) => format!(
            "somebody masked it ({link}): it is left as it is until `systemctl unmask {name}` on this machine"
        ),
        None => format!("a unit of this name that is not fleet's exists ({origin})"),
    }
}

fn still_running<'a>(
    excludes: &'a BTreeSet<UnitName>,
    desired: &BTreeMap<UnitName, Desired>,
    observed: &BTreeMap<UnitName, Observed>,
) -> Option<&'a UnitName> {
    excludes.iter().find(|other| {
        !desired.contains_key(*other)
            && observed.get(*other).is_some_and(|seen| {
                seen.is_fleets() && (seen.state.is_up() || seen.state.is_stopping())
            })
    })
}

#[cfg(test)]
mod tests;
