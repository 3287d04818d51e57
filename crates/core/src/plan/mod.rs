//! From what a machine should have and what it has to the ordered tasks that close the gap.
//!
//! A plan leaves nothing to decide for the agent that carries it out, and every task has a reason.
//! It contains only what can be done now. A unit that is still stopping gets its next task in the
//! plan after it has stopped. Carrying a plan out and planning again gives the empty plan.

mod model;

use std::collections::{BTreeMap, BTreeSet};

pub use self::model::{Action, Desired, Links, Mark, Observed, Plan, Run, Task};
use crate::place::{Placeable, conflict};
use crate::systemd::{MASKED, State};
use crate::trigger::triggered;
use crate::unit::{Content, Effect, Parsed, TargetState, UnitFile, UnitKind, UnitName, difference};

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
            // fleet's start did nothing: the unit already ran, with the file from before the
            // change.
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
