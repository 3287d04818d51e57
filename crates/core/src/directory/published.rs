//! The publications of a directory, and the content that the registry has instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Action, Fingerprint};
use crate::record::{Past, SeenRecord, UnitRecord};
use crate::unit::UnitName;

/// The last publication of this directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Whether the directory was seen with its marker, so that it can lose it.
    pub marked: bool,
    /// Whether the directory was dealt with before. A file of older versions was written after
    /// that.
    #[serde(default = "dealt_with")]
    pub seen: bool,
    /// The files that were dealt with, by unit.
    pub units: BTreeMap<UnitName, Last>,
}

fn dealt_with() -> bool {
    true
}

/// The content of a file when it was last dealt with. It stays so until the file changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Its fingerprint.
    pub content: Fingerprint,
    /// Whether it was passed over as stale, rather than published or adopted. Remembered, because a
    /// stale copy must not bring a unit back that is destroyed later.
    #[serde(default)]
    pub stale: bool,
    /// Why it was passed over; `None` if it was not, or by an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<PassedOver>,
}

/// Why a content is not published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassedOver {
    /// The fleet had this content before the one that it has.
    #[default]
    Older,
    /// The fleet went back from it.
    RolledBack,
    /// The directory is new, and the fleet has another content.
    New,
    /// The directory is new, and the unit was destroyed.
    Destroyed,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Older => "the registry has a newer revision; change the file to publish it",
            Self::RolledBack => {
                "the fleet went back from this revision; change the file, or try it again with fleetctl start --replace"
            }
            Self::New => {
                "the registry has another content, and this directory is seen for the first time; change the file to publish it"
            }
            Self::Destroyed => {
                "the unit was destroyed, and this directory is seen for the first time; change the file to bring it back"
            }
        })
    }
}

/// The unit in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its newest content: of the candidate, else of the stable revision. `None` if the unit was
    /// destroyed.
    pub newest: Option<Fingerprint>,
    /// The contents it had before, also those whose revisions are gone.
    pub older: BTreeSet<Fingerprint>,
    /// Those of them that machines went back from the last time that they were tried.
    pub rolled_back: BTreeSet<Fingerprint>,
}

impl Known {
    /// Returns what the registry knows of a unit that was destroyed.
    pub fn destroyed(seen: &SeenRecord) -> Self {
        Self {
            newest: None,
            older: seen.contents.iter().cloned().collect(),
            rolled_back: BTreeSet::new(),
        }
    }

    /// Returns what the registry knows, by a unit's record, its older revisions by number, and all
    /// its contents.
    pub fn of(record: &UnitRecord, history: &BTreeMap<u64, Past>, seen: &SeenRecord) -> Self {
        let newest = Fingerprint::of(&record.newest().content);
        let stable = Fingerprint::of(&record.stable.content);
        // In the order of their numbers, so that the last trial of a content decides.
        let trials: BTreeMap<Fingerprint, bool> = history
            .values()
            .map(|past| {
                let content = Fingerprint::of(&past.revision.content);
                (content, past.was_rolled_back())
            })
            .chain([(stable, false)])
            .filter(|(content, _)| *content != newest)
            .collect();
        let rolled_back = trials.iter().filter(|(_, back)| **back);
        let rolled_back = rolled_back.map(|(content, _)| content.clone()).collect();
        let seen = seen.contents.iter().filter(|content| **content != newest);
        Self {
            rolled_back,
            older: seen.cloned().chain(trials.into_keys()).collect(),
            newest: Some(newest),
        }
    }
}

impl Published {
    /// Takes note that an action was done.
    pub fn apply(&mut self, action: &Action) {
        let (content, why) = match action {
            Action::Disown(name) => {
                self.units.remove(name);
                return;
            }
            Action::Adopt(_, fingerprint) => (fingerprint.clone(), None),
            Action::PassOver(_, fingerprint, why) => (fingerprint.clone(), Some(*why)),
            Action::Publish { content, .. } => (Fingerprint::of(content), None),
        };
        let stale = why.is_some();
        let last = Last {
            content,
            stale,
            why,
        };
        self.units.insert(action.name().clone(), last);
    }
}

/// Says how a file that was published, or agreed with the registry, differs from what the registry
/// has now. `None` if it does not, or if it was passed over, which is said already.
pub fn lost(last: &Last, newest: Option<&Fingerprint>) -> Option<&'static str> {
    match newest {
        _ if last.stale => None,
        Some(newest) if *newest == last.content => None,
        Some(_) => Some(
            "the registry has another content: this one was rolled back, or replaced by the API or another machine; change the file to publish it",
        ),
        None => {
            Some("the unit was destroyed; remove the file, or change it to bring the unit back")
        }
    }
}
