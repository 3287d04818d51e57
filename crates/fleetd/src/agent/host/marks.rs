//! What the agent remembers of the units it put in place, until the next boot.
//!
//! The file lies beside the unit files under /run. A reboot removes both, so every unit is started
//! again. While the machine is up, a restarted fleetd reads here which units were started, and
//! starts none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use fleet_core::plan::{Desired, Mark, Run};
use fleet_core::systemd::{JobResult, State};
use fleet_core::unit::UnitName;
use serde::{Deserialize, Serialize};

use crate::state_file;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    units: BTreeMap<UnitName, Mark>,
    /// Marked as launched before systemd was asked. Left over by a crash between the two.
    starting: BTreeSet<UnitName>,
    /// The run before each of these starts, empty if there was none.
    #[serde(default)]
    runs_before: BTreeMap<UnitName, String>,
    /// Left over by a crash while systemd was asked for a restart.
    #[serde(default)]
    restarting: BTreeMap<UnitName, Restart>,
    /// Left over by a crash while systemd was asked for a stop.
    #[serde(default)]
    stopping: BTreeSet<UnitName>,
    /// systemd skipped the start, and forgets that with the unit.
    #[serde(default)]
    skipped: BTreeSet<UnitName>,
    /// How a start ended that was not done. systemd forgets that, with the unit or without.
    #[serde(default)]
    not_started: BTreeMap<UnitName, JobResult>,
    /// How often systemd had rebooted without the kernel when that was written; 0 if an older
    /// version wrote it.
    #[serde(default)]
    soft_reboots: u32,
    /// Whether the desired state on disk is older than what was done here.
    #[serde(default)]
    desired_is_stale: bool,
}

/// A restart that systemd was, or was about to be, asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Restart {
    /// The run that it ends.
    run: String,
    /// What the process depends on that it starts.
    process: String,
    /// The store revision that made the unit.
    #[serde(default)]
    created: u64,
}

/// The marks, in memory and on file.
#[derive(Debug)]
pub(in crate::agent) struct Marks {
    content: Content,
    /// Whether that is what is on file.
    is_saved: bool,
    path: Option<PathBuf>,
    /// Why nobody knows what was started: a newer version wrote it down.
    unknown: Option<String>,
}

impl Marks {
    /// Reads the marks. A file that cannot be read counts as none: units that run are found
    /// running, and only a oneshot that is done would run again. One that a newer version wrote is
    /// left as it is, see [`Marks::unknown`].
    pub(in crate::agent) fn open(path: PathBuf) -> Self {
        let content = match state_file::load::<Content>(&path) {
            Ok(content) => content.unwrap_or_default(),
            Err(error) if error.is_newer() => {
                let text = format!(
                    "{error}, or stop fleetd here, remove the file, and start it: then oneshots that are done run again. Until then every unit is left as it is"
                );
                tracing::error!("{text}");
                return Self {
                    unknown: Some(text),
                    ..Self::in_memory()
                };
            }
            Err(error) => {
                tracing::warn!("marks of started units are lost: {error}");
                Content::default()
            }
        };
        Self {
            content,
            is_saved: true,
            path: Some(path),
            unknown: None,
        }
    }

    /// Marks that are not kept on file.
    pub(in crate::agent) fn in_memory() -> Self {
        Self {
            content: Content::default(),
            is_saved: true,
            path: None,
            unknown: None,
        }
    }

    /// Why nothing may be started or stopped by these marks; none if it may.
    pub(in crate::agent) fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// A unit's mark.
    pub(in crate::agent) fn get(&self, name: &UnitName) -> Option<&Mark> {
        self.content.units.get(name)
    }

    /// The units that have one.
    pub(in crate::agent) fn names(&self) -> impl Iterator<Item = &UnitName> {
        self.content.units.keys()
    }

    /// The units that a crash left between the mark and the job: a start, a restart or a stop.
    pub(in crate::agent) fn unsettled(&self) -> BTreeSet<UnitName> {
        let Content {
            starting,
            restarting,
            stopping,
            ..
        } = &self.content;
        let jobs = starting.iter().chain(restarting.keys()).chain(stopping);
        jobs.cloned().collect()
    }

    /// Settles such a unit by what systemd says of it now. `run`: its run, empty if there is none.
    ///
    /// A start counts if the unit is up, or had another run since: then it ended, and is systemd's.
    /// Without one the start may never have been asked for, and would be lost. systemd remembers
    /// runs of the days before: they prove nothing.
    pub(in crate::agent) fn settle(&mut self, name: &UnitName, state: &State, run: &str) {
        let content = self.edit();
        let was_stopping = content.stopping.remove(name);
        let was_starting = content.starting.remove(name);
        let before = content.runs_before.remove(name);
        let has_run = !run.is_empty() && before.is_some_and(|before| before != run);
        let restart = content.restarting.remove(name);
        let is_coming = matches!(state.job.as_deref(), Some("start" | "restart"));
        if let Some(restart) = restart {
            // If there is no run any more, the failure of the one before was forgotten, and perhaps
            // no more than that: nothing runs that another restart could end.
            if restart.run != run && !run.is_empty() || is_coming {
                self.launched(name, Some(restart.process));
                self.created(name, restart.created);
            }
        } else if was_starting && !state.is_up() && !has_run
            || was_stopping && state.is_down_or_stopping()
        {
            self.launched(name, None);
        }
    }

    /// Whether the desired state on disk is older than what was done here.
    pub(in crate::agent) fn is_desired_stale(&self) -> bool {
        self.content.desired_is_stale
    }

    /// Notes whether it is.
    pub(in crate::agent) fn set_desired_stale(&mut self, is_stale: bool) {
        if self.content.desired_is_stale != is_stale {
            self.edit().desired_is_stale = is_stale;
        }
    }

    /// How often systemd had rebooted without the kernel when these units were started.
    pub(in crate::agent) fn soft_reboots(&self) -> u32 {
        self.content.soft_reboots
    }

    /// systemd has rebooted without the kernel since, which ended all but these units.
    pub(in crate::agent) fn soft_rebooted(&mut self, times: u32, up: &BTreeSet<UnitName>) {
        let down: Vec<UnitName> = self
            .names()
            .filter(|it| !up.contains(*it))
            .cloned()
            .collect();
        for name in down {
            self.launched(&name, None);
        }
        self.edit().soft_reboots = times;
    }

    /// Its file will be written anew. To be saved before it is.
    pub(in crate::agent) fn writing(&mut self, name: &UnitName) {
        // Of one that is new there is nothing to be wrong about.
        if let Some(mark) = self.content.units.get_mut(name) {
            mark.unread = true;
            self.is_saved = false;
        }
    }

    /// A run of it goes on while its file changes to that of another process.
    pub(in crate::agent) fn runs_on(&mut self, name: &UnitName, id: &str, process: &str) {
        let Some(mark) = self.content.units.get_mut(name) else {
            return;
        };
        let known = mark.earlier.as_ref().is_some_and(|run| run.id == id);
        let before = mark.process.clone().or_else(|| mark.launched.clone());
        let before = before.filter(|before| !known && before != process);
        if let Some(process) = before {
            mark.earlier = Some(Run {
                id: id.to_owned(),
                revision: mark.revision,
                process,
            });
            self.is_saved = false;
        }
    }

    /// Its file and its links are gone; systemd may still know it.
    pub(in crate::agent) fn removed(&mut self, name: &UnitName) {
        self.launched(name, None);
        let mark = self.edit().units.entry(name.clone()).or_default();
        mark.unread = true;
    }

    /// systemd has looked for the files of these again, and has found none.
    pub(in crate::agent) fn read(&mut self, names: &[UnitName]) {
        for name in names {
            if let Some(mark) = self.edit().units.get_mut(name) {
                mark.unread = false;
            }
        }
    }

    /// That revision's file is in place, linked, and read.
    pub(in crate::agent) fn linked(&mut self, name: &UnitName, want: &Desired) {
        let mark = self.edit().units.entry(name.clone()).or_default();
        (mark.revision, mark.installed, mark.unread) = (want.revision, want.install, false);
        mark.process = Some(want.process.clone());
        if mark.launched.is_none() {
            mark.created = want.created;
        }
    }

    /// What systemd has, and what runs, is that revision already.
    pub(in crate::agent) fn noted(&mut self, name: &UnitName, want: &Desired) {
        self.linked(name, want);
        if let Some(mark) = self.edit().units.get_mut(name)
            && mark.launched.is_some()
        {
            mark.launched = Some(want.process.clone());
        }
    }

    /// Which unit of that name was started.
    pub(in crate::agent) fn created(&mut self, name: &UnitName, created: u64) {
        if let Some(mark) = self.edit().units.get_mut(name) {
            mark.created = created;
        }
    }

    /// Forgets which units these are.
    pub(in crate::agent) fn forget_created(&mut self) {
        for mark in self.edit().units.values_mut() {
            mark.created = 0;
        }
    }

    /// How its start ended.
    pub(in crate::agent) fn start_ended(&mut self, name: &UnitName, result: JobResult) {
        if result == JobResult::Done {
            if self.content.not_started.contains_key(name) {
                self.edit().not_started.remove(name);
            }
        } else if self.content.units.contains_key(name) {
            self.edit().not_started.insert(name.clone(), result);
        }
    }

    /// How a start of it ended that was not done.
    pub(in crate::agent) fn not_started(&self, name: &UnitName) -> Option<&JobResult> {
        self.content.not_started.get(name)
    }

    /// systemd will be asked to start it. To be saved before it is asked.
    pub(in crate::agent) fn starting(&mut self, name: &UnitName, run: &str, want: &Desired) {
        self.launched(name, Some(want.process.clone()));
        self.created(name, want.created);
        let content = self.edit();
        content.starting.insert(name.clone());
        content.runs_before.insert(name.clone(), run.to_owned());
    }

    /// systemd will be asked to end that run of it and start another. To be saved before it is
    /// asked.
    pub(in crate::agent) fn restarting(&mut self, name: &UnitName, run: &str, want: &Desired) {
        let restart = Restart {
            run: run.to_owned(),
            process: want.process.clone(),
            created: want.created,
        };
        self.edit().not_started.remove(name);
        self.edit().restarting.insert(name.clone(), restart);
    }

    /// systemd will be asked to stop it. To be saved before it is asked.
    pub(in crate::agent) fn stopping(&mut self, name: &UnitName) {
        self.edit().stopping.insert(name.clone());
    }

    /// systemd has refused that.
    pub(in crate::agent) fn not_stopped(&mut self, name: &UnitName) {
        self.edit().stopping.remove(name);
    }

    /// systemd has refused that: the run before goes on.
    pub(in crate::agent) fn not_restarted(&mut self, name: &UnitName) {
        self.edit().restarting.remove(name);
    }

    /// Whether it was started, and with which process part.
    pub(in crate::agent) fn launched(&mut self, name: &UnitName, process: Option<String>) {
        let content = self.edit();
        content.starting.remove(name);
        content.runs_before.remove(name);
        content.restarting.remove(name);
        content.stopping.remove(name);
        content.skipped.remove(name);
        content.not_started.remove(name);
        if let Some(mark) = content.units.get_mut(name) {
            mark.launched = process;
        }
    }

    /// Notes whether systemd skipped its start.
    pub(in crate::agent) fn skipped(&mut self, name: &UnitName, skipped: bool) {
        let skipped = skipped && self.content.units.contains_key(name);
        if skipped == self.is_skipped(name) {
            return;
        }
        let all = &mut self.edit().skipped;
        match skipped {
            true => all.insert(name.clone()),
            false => all.remove(name),
        };
    }

    /// Whether it did.
    pub(in crate::agent) fn is_skipped(&self, name: &UnitName) -> bool {
        self.content.skipped.contains(name)
    }

    /// systemd has taken the start: the mark stands.
    pub(in crate::agent) fn settled(&mut self, name: &UnitName) {
        let content = self.edit();
        content.starting.remove(name);
        content.runs_before.remove(name);
    }

    /// The unit is gone.
    pub(in crate::agent) fn forget(&mut self, name: &UnitName) {
        let content = self.edit();
        content.units.remove(name);
        content.starting.remove(name);
        content.runs_before.remove(name);
        content.restarting.remove(name);
        content.stopping.remove(name);
        content.skipped.remove(name);
        content.not_started.remove(name);
    }

    /// What changes is to be saved.
    fn edit(&mut self) -> &mut Content {
        self.is_saved = false;
        &mut self.content
    }

    /// Writes the file if anything has changed.
    pub(in crate::agent) fn save(&mut self) -> io::Result<()> {
        if self.is_saved {
            return Ok(());
        }
        if let Some(path) = &self.path {
            state_file::save(path, &self.content)?;
        }
        self.is_saved = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(process: &str) -> Desired {
        Desired {
            revision: 1,
            content: "".into(),
            process: process.to_owned(),
            install: false,
            launch: true,
            excludes: BTreeSet::new(),
            created: 1,
            min_ready: std::time::Duration::ZERO,
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

    fn launched<'a>(marks: &'a Marks, name: &UnitName) -> Option<&'a str> {
        marks.get(name).and_then(|mark| mark.launched.as_deref())
    }

    #[test]
    fn a_start_that_a_crash_left_open_counts_if_the_unit_is_up() {
        let name = UnitName::parse("a.service").expect("valid");
        // systemd may remember a run of before: it says nothing about the start that was to come.
        for (active, job, run, process) in [
            ("active", None, "new", Some("p")),
            ("activating", Some("start"), "new", Some("p")),
            ("deactivating", Some("start"), "before", Some("p")),
            ("inactive", Some("start"), "", Some("p")),
            ("inactive", None, "", None),
            ("inactive", None, "before", None),
            ("failed", None, "before", None),
            // It was started, and has failed since.
            ("failed", None, "new", Some("p")),
            ("deactivating", Some("stop"), "before", None),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("marks.json");
            let mut marks = Marks::open(path.clone());
            marks.linked(&name, &want("p1"));
            marks.starting(&name, "before", &want("p"));
            marks.save().expect("saves");
            let mut found = Marks::open(path.clone());
            assert_eq!(found.unsettled(), BTreeSet::from([name.clone()]));
            found.settle(&name, &state(active, job), run);
            found.save().expect("saves");
            let settled = Marks::open(path);
            assert!(settled.unsettled().is_empty());
            assert_eq!(launched(&settled, &name), process, "{active} {job:?} {run}");
        }
    }

    #[test]
    fn a_stop_that_a_crash_left_open_counts_if_the_unit_stops() {
        let name = UnitName::parse("a.service").expect("valid");
        for (active, job, process) in [
            ("active", None, Some("p")),
            ("active", Some("stop"), None),
            ("deactivating", Some("stop"), None),
            ("inactive", None, None),
        ] {
            let mut marks = Marks::in_memory();
            marks.linked(&name, &want("p1"));
            marks.launched(&name, Some("p".to_owned()));
            marks.stopping(&name);
            marks.settle(&name, &state(active, job), "run");
            assert!(marks.unsettled().is_empty());
            assert_eq!(launched(&marks, &name), process, "{active} {job:?}");
        }
    }

    #[test]
    fn a_restart_that_a_crash_left_open_counts_by_another_run() {
        let name = UnitName::parse("a.service").expect("valid");
        for (run, job, process) in [
            ("before", None, "p1"),
            ("before", Some("restart"), "p2"),
            // The stop is over, and the start waits for another unit.
            ("before", Some("start"), "p2"),
            ("after", None, "p2"),
            ("", None, "p1"),
        ] {
            let mut marks = Marks::in_memory();
            marks.linked(&name, &want("p1"));
            marks.launched(&name, Some("p1".to_owned()));
            marks.restarting(&name, "before", &want("p2"));
            marks.settle(&name, &state("active", job), run);
            assert!(marks.unsettled().is_empty());
            assert_eq!(launched(&marks, &name), Some(process), "{run} {job:?}");
        }
    }
}
