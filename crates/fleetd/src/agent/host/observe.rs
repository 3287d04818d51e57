//! The eyes of the host: what systemd and the disk say of units, asked no more than it takes.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::plan::Desired;
use fleet_core::systemd::{JobResult, State};
use fleet_core::trigger::triggered;
use fleet_core::unit::UnitName;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::Host;
use super::unit_file::InPlace;
use crate::systemd::{Details, SystemdError};

/// Looks at units that wait for answers at once, each with several calls. PID 1 serves them one
/// after the other; more only queue there, and the bus cuts off who waits for more than 128
/// answers.
const LOOKS: usize = 16;

impl Host {
    /// Whether it is down, with nothing under way and nothing amiss. systemd tells when that
    /// changes; to ask would have it read the unit's file, and forget it again, which takes it the
    /// longer the more units run.
    pub(super) fn is_at_rest(&self, name: &UnitName) -> bool {
        let is_down = |state: &State| {
            state.load == "loaded" && state.active == "inactive" && state.job.is_none()
        };
        self.looked
            && self.files.contains_key(name)
            && self.states.get(name).is_some_and(is_down)
            && !self.failures.contains_key(name)
            && !self.refused.contains_key(name)
    }

    /// Looks at these units; closely at those that `changed`, where that is known, and at those
    /// whose state is another one. Of those `at_rest` systemd is asked nothing: only what is on
    /// disk is read. `after`: whether it follows a plan for them.
    pub(super) async fn look(
        &mut self,
        names: &BTreeSet<UnitName>,
        at_rest: &BTreeSet<UnitName>,
        changed: Option<&BTreeSet<UnitName>>,
        after: bool,
        desired: Option<&BTreeMap<UnitName, Desired>>,
    ) -> Result<(), SystemdError> {
        if names.is_empty() {
            return Ok(());
        }
        let asked = &(names - at_rest) | &self.triggers(names, desired);
        let news = self.systemd.looking(&asked);
        let mut states = match asked.is_empty() {
            true => BTreeMap::new(),
            false => self.systemd.states(&asked).await?,
        };
        let known = self
            .states
            .iter()
            .filter(|(name, _)| at_rest.contains(*name));
        states.extend(known.map(|(name, state)| (name.clone(), state.clone())));
        self.look_at_disk(names).await;
        let (systemd, heart, told) = (&self.systemd, &self.heart, &states);
        let asked: Vec<_> = names
            .iter()
            .map(|name| {
                let wanted = desired.is_some_and(|desired| desired.contains_key(name));
                // Also for a unit whose file is missing: the unit of that name may not be fleet's
                // any more.
                let marked = self.marks.get(name).is_some();
                let asked = wanted || marked || self.files.contains_key(name);
                async move {
                    let foreign = if asked {
                        systemd.foreign(name, &told[name]).await
                    } else {
                        Ok(None)
                    };
                    heart.still_busy();
                    (name, foreign)
                }
            })
            .collect();
        let foreign: Vec<_> = stream::iter(asked).buffer_unordered(LOOKS).collect().await;
        for (name, foreign) in foreign {
            let foreign = match foreign {
                Err(error @ SystemdError::Unavailable(_)) => return Err(error),
                // A name that is not known to be free is not touched.
                answer => answer.unwrap_or_else(|error| Some(error.to_string())),
            };
            match foreign {
                Some(origin) => self.foreign.insert(name.clone(), origin),
                None => self.foreign.remove(name),
            };
        }
        // Of a unit that never ran there is nothing to tell, and systemd would read its file for
        // each answer.
        let has_run = |name: &&UnitName| {
            let is_down = |state: &State| state.active == "inactive" && state.job.is_none();
            let is_down = states.get(*name).is_some_and(is_down);
            let is_launched = self.marks.get(name).is_some_and(|it| it.launched.is_some());
            !is_down || is_launched || self.details.get(*name).is_some_and(Details::started)
        };
        let ours = names.iter().filter(|name| self.files.contains_key(*name));
        let is_known = |name: &&UnitName| {
            changed.is_some_and(|changed| !changed.contains(*name))
                && !news.contains(*name)
                && self.details.contains_key(*name)
                && self.states.get(*name) == states.get(*name)
        };
        // One that was just asked for: its end will be told, and most are over at once.
        let has_new_job = |name: &&UnitName| after && states[*name].job.is_some();
        let ours = ours.filter(|name| !at_rest.contains(*name) && has_run(name));
        let ours = ours.filter(|name| !is_known(name) && !has_new_job(name));
        let asked: Vec<_> = ours
            .map(|name| async move {
                let details = systemd.details(name, &told[name]).await;
                heart.still_busy();
                (name.clone(), details)
            })
            .collect();
        let details: Vec<_> = stream::iter(asked).buffer_unordered(LOOKS).collect().await;
        for (name, details) in details {
            match details {
                Err(error @ SystemdError::Unavailable(_)) => return Err(error),
                details => {
                    let mut details = details.unwrap_or_default();
                    // Each stop that is tried in vain is a change of state to systemd.
                    let known = self
                        .details
                        .get(&name)
                        .filter(|_| self.busy.contains(&name));
                    details.since = known.map_or(details.since, |known| known.since);
                    self.details.insert(name, details);
                }
            }
        }
        self.states.extend(states);
        self.note_skipped(names);
        self.note_ends(names);
        Ok(())
    }

    /// The units that these start, where they are to be launched: without them they cannot be.
    pub(super) fn triggers(
        &self,
        names: &BTreeSet<UnitName>,
        desired: Option<&BTreeMap<UnitName, Desired>>,
    ) -> BTreeSet<UnitName> {
        let wanted = names.iter().filter_map(|name| {
            let want = desired?.get(name).filter(|want| want.launch)?;
            triggered(name, Some(&want.content))
        });
        wanted.collect()
    }

    /// Remembers how jobs of these units ended.
    fn note_ends(&mut self, names: &BTreeSet<UnitName>) {
        for name in names {
            let Some(state) = self.states.get(name) else {
                continue;
            };
            if let Some(ended) = self.systemd.ended(name) {
                match ended.result.why_not_stopped().filter(|_| ended.was_stop) {
                    // The job may have ended since the state was read.
                    Some(why) if state.is_up() || state.is_stopping() => {
                        // To ask again at once would be in vain, and for as long as it is busy.
                        self.failures.insert(name.clone(), why);
                        self.patient.insert(name.clone());
                        self.busy.insert(name.clone());
                        self.marks.launched(name, Some(String::new()));
                    }
                    _ if ended.was_stop => {}
                    _ => self.marks.start_ended(name, ended.result),
                }
            }
            // Started since, whoever asked for that.
            let run = self.details.get(name).map_or("", |details| &details.run);
            let earlier = self.marks.get(name).and_then(|mark| mark.earlier.as_ref());
            let is_earlier = earlier.is_some_and(|earlier| earlier.id == run);
            if state.active == "active" && !is_earlier {
                self.marks.start_ended(name, JobResult::Done);
            }
        }
    }

    /// Reads the files of these units again: somebody may have changed one.
    async fn look_at_disk(&mut self, names: &BTreeSet<UnitName>) {
        for name in names {
            // What cannot be read is written anew, or says why not.
            let there = self.systemd.on_disk(name).await.unwrap_or_default();
            match there.file {
                None => {
                    self.files.remove(name);
                }
                Some(content) if self.files.get(name).is_some_and(|it| it.content == content) => {}
                Some(content) => {
                    self.files.insert(name.clone(), InPlace::new(content));
                }
            }
            if there.linked {
                self.linked.insert(name.clone());
            } else {
                self.linked.remove(name);
            }
        }
    }

    /// Remembers which of these systemd did not start because of their own conditions, for as long
    /// as they are down.
    fn note_skipped(&mut self, names: &BTreeSet<UnitName>) {
        for name in names {
            let Some(state) = self.states.get(name) else {
                continue;
            };
            let skipped = self.details.get(name).is_some_and(|it| it.skipped);
            if state.active != "inactive" {
                self.marks.skipped(name, false);
            } else if skipped && state.job.is_none() {
                self.marks.skipped(name, true);
            }
        }
    }
}
