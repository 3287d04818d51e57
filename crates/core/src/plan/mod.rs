//! From what a machine should have and what it has to the ordered tasks that close the gap.
//!
//! A plan leaves nothing to decide for the agent that carries it out, and every task has a reason.
//! It contains only what can be done now. A unit that is still stopping gets its next task in the
//! plan after it has stopped. Carrying a plan out and planning again gives the empty plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::place::{Placeable, conflict};
use crate::systemd::{MASKED, State};
use crate::trigger::triggered;
use crate::unit::{Content, Effect, Parsed, TargetState, UnitFile, UnitKind, UnitName, difference};

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
    fn is_fleets(&self) -> bool {
        self.foreign.is_none() && (self.file.is_some() || self.mark.is_some())
    }

    /// Whether fleet has started it since the boot.
    fn is_launched(&self) -> bool {
        let mark = self.mark.as_ref();
        mark.is_some_and(|mark| mark.launched.is_some())
    }

    /// The run that goes on since before the file in place.
    fn earlier_run(&self) -> Option<&Run> {
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
    fn is_between_runs(&self) -> bool {
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

/// The state of a unit that was never seen.
fn unseen() -> Observed {
    Observed {
        file: None,
        linked: false,
        mark: None,
        state: State::not_found(),
        foreign: None,
        run: String::new(),
        members: BTreeSet::new(),
    }
}

/// Plans for these units of one machine; any other one stays as it is. `observed` holds them, what
/// they exclude, what they start, and what leaves this machine, as far as fleet has a file or a
/// mark of it.
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
            if plan.unwanted(name, seen) {
                reload.push(name.as_str());
            }
            continue;
        };
        if let Some(origin) = &seen.foreign {
            plan.refused.insert(name.clone(), refusal(name, origin));
            continue;
        }
        let reads_same = seen
            .file
            .as_ref()
            .is_some_and(|it| reads_same(it, &want.content));
        if seen.is_between_runs() && !reads_same {
            let wait = "its restart is under way: its file changes after that";
            plan.waits.insert(name.clone(), wait.to_owned());
            continue;
        }
        if plan.put_in_place(name, want, seen, reads_same) {
            reload.push(name.as_str());
        }
        if !want.launch {
            plan.loaded_only(name, seen);
        } else if let Some(other) = still_running(name, want, seen, desired, observed) {
            let wait = format!("{other} conflicts with it and has not stopped yet");
            plan.waits.insert(name.clone(), wait);
        } else if let Some(other) = successor(name, want, seen, desired) {
            let wait = format!("{other} conflicts with it and takes its place");
            plan.waits.insert(name.clone(), wait);
        } else {
            plan.launch(name, want, seen, &Others { desired, observed });
        }
    }
    plan.stop_before_start();
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

/// Whether systemd reads the same in both: comments and `[X-Fleet]` are not for it.
pub fn reads_same(a: &Content, b: &Content) -> bool {
    let parse = |content: &Content| UnitFile::parse(content.as_bytes());
    a == b || difference(&parse(a), &parse(b)).effect == Effect::Nothing
}

/// The other units of the machine.
struct Others<'a> {
    desired: &'a BTreeMap<UnitName, Desired>,
    observed: &'a BTreeMap<UnitName, Observed>,
}

impl Plan {
    fn task(&mut self, unit: &UnitName, action: Action, reason: impl Into<String>) {
        self.tasks.push(Task {
            action,
            unit: Some(unit.clone()),
            reason: reason.into(),
        });
    }

    /// Returns whether systemd must be told that its file is gone.
    fn unwanted(&mut self, name: &UnitName, seen: &Observed) -> bool {
        if seen.file.is_none() && seen.mark.is_none() {
            return false;
        }
        let ours = seen.foreign.is_none();
        let why = "it does not belong on this machine";
        if ours && !seen.members.is_empty() {
            // To stop a slice stops all that runs in it, and that is not fleet's to stop.
            let members: Vec<&str> = seen.members.iter().map(String::as_str).collect();
            let stays = format!(
                "{why}; systemd keeps it while {} runs in it",
                members.join(", ")
            );
            return self.remove(name, seen, &stays);
        }
        if ours && seen.state.is_stopping() {
            self.waits
                .insert(name.clone(), format!("{why}, and goes once it has stopped"));
        } else if ours && seen.state.is_up() {
            self.task(name, Action::Stop, why);
        } else {
            return self.remove(name, seen, why);
        }
        false
    }

    /// Removes what is there of a unit. Its timer, its socket or a target may keep it in systemd's
    /// memory, and start it from there: so systemd reloads, and the unit is forgotten after another
    /// look at it.
    fn remove(&mut self, name: &UnitName, seen: &Observed, reason: &str) -> bool {
        let is_unread = seen.mark.as_ref().is_some_and(|mark| mark.unread);
        if seen.file.is_some() || seen.linked {
            self.task(name, Action::Remove, reason);
        } else if is_unread
            && seen.foreign.is_none()
            && (name.is_template() || !seen.state.is_not_found())
        {
            return true;
        } else {
            self.task(name, Action::Forget, reason);
        }
        false
    }

    /// Answers whether systemd must read the file again.
    fn put_in_place(
        &mut self,
        name: &UnitName,
        want: &Desired,
        seen: &Observed,
        same: bool,
    ) -> bool {
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
        if same && read.is_some() && seen.linked && !seen.state.is_not_found() {
            if !linked {
                let reason = format!("systemd reads the same in revision {}", want.revision);
                self.task(name, Action::Note, reason);
            }
            return false;
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
        // A mark of an older revision beside the right file: written, but perhaps never read. Where
        // a link was missing, systemd may have looked for the file in that moment, and have given
        // it up. A template is no unit of systemd's, whose instances may have been looked for in
        // vain.
        let is_known = name.is_template() || !seen.state.is_not_found();
        seen.state.lost_its_file() || linked && !seen.linked || is_known && (!same || !linked)
    }

    fn loaded_only(&mut self, name: &UnitName, seen: &Observed) {
        let launched = seen.mark.as_ref().and_then(|mark| mark.launched.as_ref());
        // A loaded unit may be started by its socket or timer; only what fleet started is stopped.
        if launched.is_some() {
            self.task(name, Action::Stop, "it should be loaded, not launched");
        }
    }

    fn launch(&mut self, name: &UnitName, want: &Desired, seen: &Observed, others: &Others<'_>) {
        let mark = seen.mark.as_ref();
        let Some(process) = mark.and_then(|mark| mark.launched.as_ref()) else {
            if seen.state.is_stopping() {
                let wait = "it is stopping, and starts after that";
                self.waits.insert(name.clone(), wait.to_owned());
            } else if let Some(unit) = others.missing(name, want) {
                self.refused.insert(name.clone(), missing(&unit));
            } else if let Some(run) = seen.outdated_run(want) {
                let reason = format!("it runs revision {} already", run.revision);
                self.task(name, Action::Restart, reason);
            } else if name.kind() != UnitKind::Socket || seen.state.is_up() {
                self.task(name, Action::Start, "it should be launched");
            } else if let Some((unit, is_fleets)) = others.runs_for(name, want) {
                self.make_way(name, &unit, is_fleets);
            } else {
                self.task(name, Action::Listen, "it should be launched");
            }
            return;
        };
        let created = mark.map_or(0, |mark| mark.created);
        let is_another = created != 0 && want.created != 0 && created != want.created;
        if is_another {
            self.task(name, Action::Restart, "it was destroyed and made again");
        } else if *process != want.process {
            self.update(name, want, seen, process, others);
        } else if name.kind() == UnitKind::Service
            && seen.state.job.is_none()
            && let Some(run) = seen.outdated_run(want)
        {
            // Its start ended nothing: the unit was started by somebody else before the file
            // changed.
            let reason = format!("it still runs revision {}", run.revision);
            self.task(name, Action::Restart, reason);
        }
        // Started once: from here on it is systemd's, whatever becomes of it.
    }

    /// Brings a unit that was launched to another file, in the way that its kind takes one.
    fn update(
        &mut self,
        name: &UnitName,
        want: &Desired,
        seen: &Observed,
        process: &str,
        others: &Others<'_>,
    ) {
        use UnitKind::{Path, Slice, Socket, Target, Timer};
        let file = |process: &str| process.split('+').next().unwrap_or_default().to_owned();
        let is_ordered = file(process) == file(&want.process);
        let reason = format!("it runs an older revision than {}", want.revision);
        let runs_it = seen
            .earlier_run()
            .is_some_and(|run| run.process == want.process);
        match name.kind() {
            // Every unit in it requires it: a restart would restart them all, and others' too.
            Slice => self.task(name, Action::Note, "a reload has applied its file"),
            // What is new in it is started. A restart would restart its `PartOf=` units.
            Target if !is_ordered => self.task(name, Action::Start, reason),
            // A restart would run at once what was due since the boot.
            Timer if !is_ordered && seen.state.takes_new_times() => {
                self.task(name, Action::Note, "a reload has applied its times");
            }
            Socket | Path | Timer if others.missing(name, want).is_some() => {
                let unit = others.missing(name, want);
                self.refused
                    .extend(unit.map(|unit| (name.clone(), missing(&unit))));
            }
            Socket => match others.runs_for(name, want) {
                Some((unit, is_fleets)) => {
                    self.make_way(name, &unit, is_fleets);
                    // A connection that waits would start the service again. Both start in a later
                    // plan.
                    if is_fleets {
                        self.task(name, Action::Stop, reason);
                    }
                }
                None => self.task(name, Action::Restart, reason),
            },
            Path | Timer => self.task(name, Action::Restart, reason),
            _ if runs_it && !is_ordered => {
                self.task(name, Action::Note, "it still runs that revision");
            }
            _ => self.task(name, Action::Restart, reason),
        }
    }

    /// Stops the service that keeps a socket from being started.
    fn make_way(&mut self, socket: &UnitName, service: &UnitName, is_fleets: bool) {
        if is_fleets {
            let stop = format!("{socket} is to start, which systemd refuses while it runs");
            self.task(service, Action::Stop, stop);
            let wait = format!("{service} has not stopped yet");
            self.waits.insert(socket.clone(), wait);
        } else {
            let why = format!(
                "its service {service} runs, and is not fleet's: the socket starts once that is stopped"
            );
            self.refused.insert(socket.clone(), why);
        }
    }

    /// A unit that stops for its socket starts again in a later plan, once it has stopped.
    fn stop_before_start(&mut self) {
        let stops = self.tasks.iter().filter(|task| task.action == Action::Stop);
        let stops: BTreeSet<UnitName> = stops.filter_map(|task| task.unit.clone()).collect();
        self.tasks.retain(|task| {
            let starts = matches!(
                task.action,
                Action::Listen | Action::Start | Action::Restart
            );
            !starts || task.unit.as_ref().is_none_or(|unit| !stops.contains(unit))
        });
    }
}

impl Others<'_> {
    /// The unit that this one starts, if it is not on this machine.
    fn missing(&self, name: &UnitName, want: &Desired) -> Option<UnitName> {
        let unit = triggered(name, Some(&want.content))?;
        let seen = self.observed.get(&unit);
        let is_missing = seen.is_some_and(|seen| seen.state.is_not_found());
        (is_missing && !self.desired.contains_key(&unit)).then_some(unit)
    }

    /// The unit that this one starts, if it runs, and whether it is fleet's.
    fn runs_for(&self, name: &UnitName, want: &Desired) -> Option<(UnitName, bool)> {
        let unit = triggered(name, Some(&want.content))?;
        let seen = self.observed.get(&unit)?;
        let runs = seen.state.is_up() || seen.state.is_stopping();
        runs.then(|| (unit, seen.is_fleets()))
    }
}

fn missing(unit: &UnitName) -> String {
    format!("{unit}, which it starts, is not on this machine: it is started when that is there")
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

/// A unit that conflicts with this one, and is on its way out. The registry may have forgotten it,
/// and then its file here is all that says so.
fn still_running<'a>(
    name: &UnitName,
    want: &Desired,
    seen: &Observed,
    desired: &BTreeMap<UnitName, Desired>,
    observed: &'a BTreeMap<UnitName, Observed>,
) -> Option<&'a UnitName> {
    // Two units that ran beside each other before one excluded the other part within a budget.
    let starts = !want.leaving && !seen.is_launched();
    let mut leaving = observed.iter().filter(|(other, seen)| {
        desired.get(*other).is_none_or(|it| it.leaving && starts)
            && *other != name
            && seen.is_fleets()
            && (seen.state.is_up() || seen.state.is_stopping())
    });
    let found = leaving.find(|(other, seen)| {
        let file = seen.file.as_ref();
        want.excludes.contains(*other)
            || file.is_some_and(|file| are_rivals((name, &want.content), (other, file)))
    });
    found.map(|(other, _)| other)
}

/// The unit that runs here instead of one that is to leave, once that is down, after a reboot say.
fn successor<'a>(
    name: &UnitName,
    want: &'a Desired,
    seen: &Observed,
    desired: &BTreeMap<UnitName, Desired>,
) -> Option<&'a UnitName> {
    let is_first =
        |other: &UnitName, it: &Desired| !it.leaving || (it.created, other) < (want.created, name);
    let mut rivals = want.excludes.iter().filter(|other| {
        let other = desired.get_key_value(*other);
        other.is_some_and(|(other, it)| it.launch && is_first(other, it))
    });
    rivals
        .next()
        .filter(|_| want.leaving && !seen.is_launched())
}

fn are_rivals(one: (&UnitName, &Content), other: (&UnitName, &Content)) -> bool {
    let options =
        |(name, content): (&UnitName, &Content)| Parsed::parse(name.clone(), content).options;
    let (ones, others) = (options(one), options(other));
    let placeable = |name, options| Placeable {
        name,
        created: 0,
        target: TargetState::Launched,
        options,
    };
    conflict(&placeable(one.0, &ones), &placeable(other.0, &others))
}

#[cfg(test)]
mod tests;
