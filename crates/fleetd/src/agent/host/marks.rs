//! What the agent remembers of the units it put in place, until the next boot.
//!
//! The file lies beside the unit files under /run, so both vanish together at a reboot and everything is started
//! anew; while the machine is up, a fleetd that starts again finds here what was started, and starts nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use fleet_core::plan::Mark;
use fleet_core::unit::UnitName;
use serde::{Deserialize, Serialize};

use crate::atomic_file;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    units: BTreeMap<UnitName, Mark>,
    /// Marked as launched before systemd was asked. Left over by a crash between the two.
    starting: BTreeSet<UnitName>,
    /// Left over by a crash while systemd was asked for a restart.
    #[serde(default)]
    restarting: BTreeMap<UnitName, Restart>,
    /// systemd skipped the start, and forgets that with the unit.
    #[serde(default)]
    skipped: BTreeSet<UnitName>,
}

/// A restart that systemd was, or was about to be, asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Restart {
    /// The run that it ends.
    run: String,
    /// What the process depends on that it starts.
    process: String,
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
    /// Reads the marks. A file that cannot be read counts as none: units that run are found running, and only a
    /// oneshot that is done would run again. One that a newer version wrote is left as it is, see [`Marks::unknown`].
    pub(in crate::agent) fn open(path: PathBuf) -> Self {
        let content = match atomic_file::load::<Content>(&path) {
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

    /// The units that a crash left between the mark and the start, or in a restart.
    pub(in crate::agent) fn unsettled(&self) -> Vec<UnitName> {
        let Content {
            starting,
            restarting,
            ..
        } = &self.content;
        starting.iter().chain(restarting.keys()).cloned().collect()
    }

    /// Settles such a unit by the run that systemd knows now, empty if it knows of none, and by whether that is about to
    /// be followed by another.
    pub(in crate::agent) fn settle(&mut self, name: &UnitName, run: &str, is_restarting: bool) {
        if let Some(restart) = self.edit().restarting.remove(name) {
            // Where there is no run any more, the failure of the one before was forgotten, and perhaps no more than that:
            // nothing runs that another restart could end.
            if restart.run != run && !run.is_empty() || is_restarting {
                self.launched(name, Some(restart.process));
            }
        } else if run.is_empty() {
            self.launched(name, None);
        } else {
            self.settled(name);
        }
    }

    /// Its file will be written anew. To be saved before it is.
    pub(in crate::agent) fn writing(&mut self, name: &UnitName) {
        // Of one that is new there is nothing to be wrong about.
        if let Some(mark) = self.content.units.get_mut(name) {
            mark.unread = true;
            self.is_saved = false;
        }
    }

    /// That revision's file is in place and linked.
    pub(in crate::agent) fn linked(&mut self, name: &UnitName, revision: u64, installed: bool) {
        let units = &mut self.edit().units;
        units
            .entry(name.clone())
            .and_modify(|mark| {
                (mark.revision, mark.installed, mark.unread) = (revision, installed, false);
            })
            .or_insert(Mark {
                revision,
                launched: None,
                installed,
                unread: false,
            });
    }

    /// systemd will be asked to start it. To be saved before it is asked.
    pub(in crate::agent) fn starting(&mut self, name: &UnitName, process: &str) {
        self.launched(name, Some(process.to_owned()));
        self.edit().starting.insert(name.clone());
    }

    /// systemd will be asked to end that run of it and start another. To be saved before it is asked.
    pub(in crate::agent) fn restarting(&mut self, name: &UnitName, run: &str, process: &str) {
        let restart = Restart {
            run: run.to_owned(),
            process: process.to_owned(),
        };
        self.edit().restarting.insert(name.clone(), restart);
    }

    /// systemd has refused that: the run before goes on.
    pub(in crate::agent) fn not_restarted(&mut self, name: &UnitName) {
        self.edit().restarting.remove(name);
    }

    /// Whether it was started, and with which process part.
    pub(in crate::agent) fn launched(&mut self, name: &UnitName, process: Option<String>) {
        let content = self.edit();
        content.starting.remove(name);
        content.restarting.remove(name);
        content.skipped.remove(name);
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
        self.edit().starting.remove(name);
    }

    /// The unit is gone.
    pub(in crate::agent) fn forget(&mut self, name: &UnitName) {
        let content = self.edit();
        content.units.remove(name);
        content.starting.remove(name);
        content.restarting.remove(name);
        content.skipped.remove(name);
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
            atomic_file::save(path, &self.content)?;
        }
        self.is_saved = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_between_mark_and_start_is_seen_afterwards() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("marks.json");
        let name = UnitName::parse("a.service").expect("valid");
        let mut marks = Marks::open(path.clone());
        marks.linked(&name, 1, false);
        marks.starting(&name, "p");
        marks.save().expect("saves");
        let mut found = Marks::open(path.clone());
        assert_eq!(found.unsettled(), vec![name.clone()]);
        found.settle(&name, "a run", false);
        found.save().expect("saves");
        let settled = Marks::open(path);
        assert!(settled.unsettled().is_empty());
        let launched = settled.get(&name).and_then(|mark| mark.launched.clone());
        assert_eq!(launched.as_deref(), Some("p"));
    }

    #[test]
    fn a_crash_in_a_restart_is_settled_by_whether_there_is_another_run() {
        let name = UnitName::parse("a.service").expect("valid");
        for (run, is_restarting, process) in [
            ("before", false, "p1"),
            ("before", true, "p2"),
            ("after", false, "p2"),
            ("", false, "p1"),
        ] {
            let mut marks = Marks::in_memory();
            marks.linked(&name, 1, false);
            marks.launched(&name, Some("p1".to_owned()));
            marks.restarting(&name, "before", "p2");
            assert_eq!(marks.unsettled(), vec![name.clone()]);
            marks.settle(&name, run, is_restarting);
            assert!(marks.unsettled().is_empty());
            let launched = marks.get(&name).and_then(|mark| mark.launched.as_deref());
            assert_eq!(launched, Some(process), "{run}");
        }
    }
}
