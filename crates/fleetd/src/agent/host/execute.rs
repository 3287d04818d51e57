//! The hands of the host: they carry a plan out, and mark what must be known after a crash.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::plan::{Action, Desired, Task};
use fleet_core::systemd::State;
use fleet_core::unit::{UnitKind, UnitName};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::Host;
use super::unit_file::InPlace;
use crate::systemd::{Systemd, SystemdError};

/// Tasks of one kind that are asked for at once. A job ends only after PID 1 has forked, and
/// executed, and was told: 1,000 starts took 6.0 s with 16 at once, and 4.9 s with 64.
const TASKS: usize = 64;

impl Host {
    /// Carries a plan out and names the units to look at after it. What fails for one unit ends
    /// that unit's part.
    pub(super) async fn carry_out(
        &mut self,
        tasks: Vec<Task>,
        desired: &BTreeMap<UnitName, Desired>,
    ) -> Result<BTreeSet<UnitName>, SystemdError> {
        let touched: BTreeSet<UnitName> =
            tasks.iter().filter_map(|task| task.unit.clone()).collect();
        let mut failed: BTreeMap<UnitName, String> = BTreeMap::new();
        let mut linked: Vec<UnitName> = Vec::new();
        let mut tasks = tasks.as_slice();
        while let Some(first) = tasks.first() {
            let same = |task: &Task| {
                std::mem::discriminant(&task.action) == std::mem::discriminant(&first.action)
            };
            let end = tasks
                .iter()
                .position(|task| !same(task))
                .unwrap_or(tasks.len());
            let (phase, rest) = tasks.split_at(end);
            tasks = rest;
            let phase: Vec<&Task> = phase
                .iter()
                .filter(|task| {
                    task.unit
                        .as_ref()
                        .is_none_or(|unit| !failed.contains_key(unit))
                })
                .collect();
            // A file counts as linked once systemd has read it too: a reload that fails is made up
            // for.
            if first.action > Action::Reload {
                self.mark_linked(&mut linked, desired);
            }
            // There is a link for every file that systemd is to read again. Where all failed it has
            // nothing to read.
            let gone = self.removed(desired);
            if first.action == Action::Reload && linked.is_empty() && gone.is_empty() {
                continue;
            }
            self.before(&phase, desired);
            let systemd = self.systemd.clone();
            let heart = self.heart.clone();
            let acts: Vec<_> = phase
                .into_iter()
                .map(|task| {
                    let (systemd, heart) = (&*systemd, &heart);
                    async move {
                        let result = act(systemd, task).await;
                        heart.still_busy();
                        (task, result)
                    }
                })
                .collect();
            let mut results = stream::iter(acts)
                .buffer_unordered(TASKS)
                .ready_chunks(TASKS);
            let mut away = None;
            while let Some(results) = results.next().await {
                for (task, result) in results {
                    match (result, &task.unit) {
                        (Ok(()), unit) => {
                            tracing::info!(unit = unit.as_ref().map(UnitName::as_str), "{task}");
                            match unit {
                                Some(name) => self.after(name, &task.action, desired, &mut linked),
                                None => self.marks.read(&gone),
                            }
                        }
                        // What others of the phase were answered still counts.
                        (Err(error @ SystemdError::Unavailable(_)), _) | (Err(error), None) => {
                            away = Some(error);
                        }
                        (Err(error), Some(unit)) => {
                            let why = error.to_string();
                            // Once, though it is tried again every few seconds.
                            if self.failures.get(unit) != Some(&why) {
                                tracing::error!(unit = %unit, "{task}, which fails: {why}");
                            }
                            match task.action {
                                Action::Listen | Action::Start => self.marks.launched(unit, None),
                                Action::Restart => {
                                    self.marks.not_restarted(unit);
                                    // What systemd has read by now has put it out of order,
                                    // whatever is wanted next.
                                    if unit.kind() != UnitKind::Service {
                                        self.marks.launched(unit, Some(String::new()));
                                    }
                                }
                                Action::Stop => self.marks.not_stopped(unit),
                                _ => {}
                            }
                            failed.insert(unit.clone(), why);
                        }
                    }
                }
                // As answers come: a later start may wait for seconds, and systemd forgets a
                // oneshot that is done, so that a fleetd which crashed meanwhile would run it
                // again.
                self.save_marks();
            }
            if let Some(error) = away {
                return Err(error);
            }
        }
        self.mark_linked(&mut linked, desired);
        self.save_marks();
        self.failures
            .retain(|name, _| !touched.contains(name) || self.busy.contains(name));
        self.failures.extend(failed);
        Ok(touched)
    }

    /// Units whose files are removed, and which systemd may still know.
    pub(super) fn removed(&self, desired: &BTreeMap<UnitName, Desired>) -> Vec<UnitName> {
        let removed = self.marks.names().filter(|name| {
            let is_unread = self.marks.get(name).is_some_and(|mark| mark.unread);
            is_unread && !self.files.contains_key(*name) && !desired.contains_key(*name)
        });
        removed.cloned().collect()
    }

    /// What must be remembered before systemd is asked.
    fn before(&mut self, phase: &[&Task], desired: &BTreeMap<UnitName, Desired>) {
        for task in phase {
            let Some(name) = &task.unit else { continue };
            let run = self.details.get(name).map_or("", |details| &details.run);
            match task.action {
                Action::Write(_) => {
                    let is_up = self.states.get(name).is_some_and(State::is_up);
                    if is_up && !run.is_empty() && takes_files_by_restart(name.kind()) {
                        self.marks.runs_on(name, run, &desired[name].process);
                    }
                    self.marks.writing(name);
                }
                Action::Listen | Action::Start => self.marks.starting(name, run, &desired[name]),
                Action::Stop => self.marks.stopping(name),
                Action::Restart => self.marks.restarting(name, run, &desired[name]),
                _ => {}
            }
        }
        self.save_marks();
    }

    /// What a task that went well leaves behind.
    fn after(
        &mut self,
        name: &UnitName,
        action: &Action,
        desired: &BTreeMap<UnitName, Desired>,
        linked: &mut Vec<UnitName>,
    ) {
        match action {
            Action::Remove => {
                self.marks.removed(name);
                self.files.remove(name);
                self.linked.remove(name);
            }
            Action::Note => self.marks.noted(name, &desired[name]),
            Action::Forget => {
                self.marks.forget(name);
                self.details.remove(name);
            }
            Action::Write(content) => {
                self.files
                    .insert(name.clone(), InPlace::new(content.clone()));
            }
            Action::Link(_) => {
                self.linked.insert(name.clone());
                linked.push(name.clone());
            }
            Action::Reload => {}
            Action::Stop => self.marks.launched(name, None),
            Action::Listen | Action::Start => self.marks.settled(name),
            Action::Restart => {
                let want = &desired[name];
                self.marks.launched(name, Some(want.process.clone()));
                self.marks.created(name, want.created);
            }
        }
    }

    fn mark_linked(&mut self, linked: &mut Vec<UnitName>, desired: &BTreeMap<UnitName, Desired>) {
        for name in linked.drain(..) {
            self.marks.linked(&name, &desired[&name]);
        }
    }

    pub(super) fn save_marks(&mut self) {
        // Without them a restarted fleetd would find the units running and only start done oneshots
        // again.
        let problem = self.marks.save().err().map(|error| {
            format!("{error}: what was started is not remembered, and would be started again by a fleetd that restarts; free some space")
        });
        if let Some(text) = problem.as_ref().filter(|_| problem != self.unsaved) {
            tracing::error!("marks.json: {text}");
        }
        self.unsaved = problem;
    }
}

/// Whether what runs keeps what its file said when it was started. A reload gives the others what
/// is new.
fn takes_files_by_restart(kind: UnitKind) -> bool {
    !matches!(kind, UnitKind::Timer | UnitKind::Slice | UnitKind::Target)
}

async fn act(systemd: &dyn Systemd, task: &Task) -> Result<(), SystemdError> {
    let Some(name) = &task.unit else {
        return systemd.reload().await;
    };
    match &task.action {
        Action::Remove => systemd.remove(name).await,
        Action::Write(content) => systemd.write(name, content).await,
        Action::Link(links) => systemd.link(name, *links).await,
        Action::Reload => systemd.reload().await,
        Action::Note | Action::Forget => Ok(()),
        Action::Stop => systemd.stop(name).await,
        Action::Restart => systemd.restart(name).await,
        Action::Listen | Action::Start => systemd.start(name).await,
    }
}
