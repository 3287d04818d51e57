//! What the agent keeps in the state directory: what this machine should have, and which registry
//! said so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleet_core::plan::Desired;
use fleet_core::trust::{Following, LOST, Memory, Seen};
use fleet_core::unit::UnitName;
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::state_file;

/// What is kept on disk: the last desired state, and the registry it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) seen: Seen,
    pub(super) desired: BTreeMap<UnitName, Desired>,
}

impl Saved {
    /// From now on it belongs to that registry. In one that was accepted the same number may stand
    /// for something else: what is there has none any more, and goes on to what the registry has as
    /// after an update that was missed. Answers whether that was so.
    pub(super) fn moves_to(&mut self, now: Seen) -> bool {
        let before = &self.seen;
        let is_made_anew = before.made != 0 && before.made != now.made;
        let moves =
            is_made_anew || (&before.cluster, before.accepted) != (&now.cluster, now.accepted);
        if moves {
            for desired in self.desired.values_mut() {
                (desired.revision, desired.created, desired.grant) = (0, 0, 0);
            }
        }
        self.seen = now;
        moves
    }
}

impl Agent {
    pub(super) fn load(&mut self) {
        let saved = state_file::load::<Saved>(&self.config.desired_file);
        let beside = state_file::load::<Seen>(&self.seen_file());
        let newer = [saved.as_ref().err(), beside.as_ref().err()];
        if let Some(error) = newer.into_iter().flatten().find(|error| error.is_newer()) {
            // Whatever it says, this version would act against it, and write over it.
            let text = format!(
                "{error}, or, to take the registry as it is, stop fleetd here, remove desired.json and seen.json, and start it; keeping what runs"
            );
            tracing::error!("{text}");
            self.disk = Some(error.to_string());
            self.following = Following::of(Memory::Lost(text));
            self.tell_trust();
            return;
        }
        match saved {
            Ok(Some(saved)) if self.host.is_desired_stale() => {
                let text = format!(
                    "{}: it could not be written before fleetd ended, and is older than what runs here; units run on, \
                     and follow the registry once it answers",
                    self.config.desired_file.display()
                );
                tracing::error!("{text}");
                self.disk = Some(text);
                let seen = beside.ok().flatten().unwrap_or(saved.seen);
                self.following = Following::of(Memory::Of(seen));
            }
            Ok(saved) => {
                if let Some(saved) = &saved {
                    tracing::info!(units = saved.desired.len(), cluster = %saved.seen.cluster, "desired state read from disk");
                    self.following = Following::of(Memory::Of(saved.seen.clone()));
                    // What an older version left, or a crash between the two files.
                    self.on_disk =
                        matches!(beside, Ok(Some(seen)) if !seen.differs_from(&saved.seen));
                }
                self.saved = saved;
            }
            Err(error) => {
                let text = format!(
                    "{error}: starting without it; units run on, and follow the registry once it answers"
                );
                tracing::error!("{text}");
                self.disk = Some(text);
                self.following = Following::of(match beside {
                    Ok(Some(seen)) => Memory::Of(seen),
                    Ok(None) => Memory::Lost(LOST.to_owned()),
                    Err(error) => {
                        tracing::error!("{error}");
                        Memory::Lost(LOST.to_owned())
                    }
                });
            }
        }
        self.tell_trust();
    }

    pub(super) fn seen_file(&self) -> PathBuf {
        self.config.desired_file.with_file_name("seen.json")
    }

    /// On disk before it is acted on, so that no reboot brings back what was stopped. A disk that
    /// does not take it stops nothing: the machine follows the registry, says so, and tries again.
    pub(super) fn save(&mut self) {
        let Some(saved) = &self.saved else { return };
        let written = state_file::save(&self.seen_file(), &saved.seen)
            .and_then(|()| state_file::save(&self.config.desired_file, saved));
        self.on_disk = written.is_ok();
        self.host.note_desired_stale(written.is_err());
        self.disk = match written {
            Ok(()) => None,
            Err(error) => {
                let text = format!(
                    "{}: {error}: this machine follows the registry, but would not know its newest state after a reboot without it; free some space",
                    self.config.desired_file.display()
                );
                if self.disk.as_ref() != Some(&text) {
                    tracing::error!("{text}");
                }
                Some(text)
            }
        };
    }

    /// What is saved belongs to that registry from now on.
    pub(super) fn move_to(&mut self, seen: &Seen) {
        let saved = self.saved.as_mut();
        if saved.is_some_and(|saved| saved.moves_to(seen.clone())) {
            self.moved = true;
            // Its numbers say nothing about those of the registry before.
            self.host.forget_created();
            self.index.touch_all();
        }
    }

    /// Writes down something about a registry that is held.
    pub(super) fn remember(&mut self, seen: &Seen) {
        self.move_to(seen);
        match &self.saved {
            Some(_) => self.save(),
            // Its file cannot be read, and stays as it is.
            None => {
                if let Err(error) = state_file::save(&self.seen_file(), seen) {
                    tracing::warn!("{}: {error}", self.seen_file().display());
                }
            }
        }
    }
}
