//! Units and their revisions, as the registry holds them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::is_zero;
use crate::directory::Fingerprint;
use crate::machine::MachineId;
use crate::rollout::{Ended, Phase};
use crate::unit::{Content, TargetState, UnitFile, process_fingerprint};

/// One version of a unit file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The revision's number, counted from 1 for each unit.
    pub number: u64,
    /// When it was submitted, in milliseconds since 1970. For display only.
    pub at: u64,
    /// The unit file.
    pub content: Content,
    /// The number of restarts that were ordered. Revisions that differ only in it still restart the
    /// unit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u64,
}

impl Revision {
    /// Returns the part of the content that a running process depends on. While it stays the same,
    /// no restart is needed.
    pub fn process(&self, file: &UnitFile) -> String {
        let fingerprint = process_fingerprint(file);
        match self.restarts {
            0 => fingerprint,
            times => format!("{fingerprint}+{times}"),
        }
    }
}

/// Returns where a revision without new content came from: a restart or an undo. `earlier` are the
/// revisions before it.
pub fn origin<'a>(
    revision: &Revision,
    earlier: impl IntoIterator<Item = &'a Revision>,
) -> Option<String> {
    let same = earlier
        .into_iter()
        .filter(|it| it.number < revision.number && it.content == revision.content)
        .max_by_key(|it| it.number)?;
    let number = same.number;
    Some(
        match revision.restarts > same.restarts && number + 1 == revision.number {
            true => format!("restart of revision {number}"),
            false => format!("content of revision {number}"),
        },
    )
}

/// Returns whether a process of `has` must restart to become one of `wanted`
/// ([`Revision::process`]). A process that was restarted more often is as good: a rollback to the
/// same content restarts nothing.
pub fn must_restart(has: &str, wanted: &str) -> bool {
    let read = |process: &str| {
        let (fingerprint, times) = process.split_once('+').unwrap_or((process, "0"));
        (
            fingerprint.to_owned(),
            times.parse::<u64>().unwrap_or(u64::MAX),
        )
    };
    let ((has, restarted), (wanted, restarts)) = (read(has), read(wanted));
    has != wanted || restarted < restarts
}

/// A revision being rolled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The revision.
    #[serde(flatten)]
    pub revision: Revision,
    /// The phase of the rollout.
    pub phase: Phase,
    /// The reason for the phase, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When the phase began, in milliseconds since 1970.
    pub since: u64,
    /// The machines on which it failed before an operator resumed the rollout.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub failed_on: BTreeSet<MachineId>,
}

/// A unit's last rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The candidate's number.
    pub revision: u64,
    /// The outcome.
    pub ended: Ended,
    /// The reason, for people.
    pub reason: String,
    /// When it ended, in milliseconds since 1970.
    pub at: u64,
}

/// A revision that is no longer stable or the candidate: `history/<name>/<number>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The revision.
    #[serde(flatten)]
    pub revision: Revision,
    /// Why it was rolled back or replaced before it was stable. `None` if it was stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

/// The beginning of the reason for a revision that no machine has judged.
const REPLACED: &str = "replaced by revision";

impl Past {
    /// Returns the record of a candidate that another revision replaced.
    pub fn replaced(revision: Revision, by: u64) -> Self {
        Self {
            revision,
            dropped: Some(format!("{REPLACED} {by} before it was stable")),
        }
    }

    /// Returns whether machines returned from it. Such a revision is known to be bad.
    pub fn was_rolled_back(&self) -> bool {
        let dropped = self.dropped.as_ref();
        dropped.is_some_and(|reason| !reason.starts_with(REPLACED))
    }
}

/// The number of a unit's contents that are remembered after their revisions are gone.
pub const SEEN_MAX: usize = 200;

/// The contents that a unit ever had: `history/<name>`. It outlives the unit, so an old copy cannot
/// restore the unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// The contents' fingerprints, each once, newest last.
    pub contents: Vec<Fingerprint>,
    /// When the unit was destroyed, in milliseconds since 1970. `None` while it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed: Option<u64>,
}

impl SeenRecord {
    /// Returns the record with these contents added. Beyond [`SEEN_MAX`] it forgets the oldest.
    pub fn with(&self, contents: impl IntoIterator<Item = Fingerprint>) -> Self {
        let mut all = self.contents.clone();
        for content in contents {
            if !all.contains(&content) {
                all.push(content);
            }
        }
        all.drain(..all.len().saturating_sub(SEEN_MAX));
        Self {
            contents: all,
            destroyed: None,
        }
    }
}

/// The record that a machine's units directory owns a unit: `owners/<unit>/<machine>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// When it became an owner, in milliseconds since 1970. For display only.
    pub since: u64,
}

/// An owner of a unit: a reason for it to exist. A unit is destroyed with its last owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// A client that submitted the unit over the API.
    Api,
    /// The units directory of a machine, which holds the unit's file.
    Directory(MachineId),
}

/// A unit: `units/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The target state.
    pub target: TargetState,
    /// The revision that every machine runs.
    pub stable: Revision,
    /// The revision being rolled out. `None` without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// The outcome of the last rollout. `None` before the first rollout has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Outcome>,
    /// The owners, except directories that have a key below `owners/`. Older versions kept
    /// directories here.
    pub owners: BTreeSet<Owner>,
}

impl UnitRecord {
    /// Returns the newest revision: the candidate if there is one.
    pub fn newest(&self) -> &Revision {
        self.candidate
            .as_ref()
            .map_or(&self.stable, |candidate| &candidate.revision)
    }

    /// Returns the revision that machines move to: the candidate, unless it is rolled back.
    pub fn heading(&self) -> &Revision {
        match &self.candidate {
            Some(candidate) if candidate.phase != Phase::RollingBack => &candidate.revision,
            _ => &self.stable,
        }
    }

    /// Returns the number for the next revision, above every earlier number.
    pub fn next_number(&self) -> u64 {
        let last = self.last.as_ref().map_or(0, |last| last.revision);
        self.newest()
            .number
            .max(self.stable.number)
            .max(last)
            .saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_distinguishes_a_restart_from_an_undo() {
        let revision = |number, content: &str, restarts| Revision {
            number,
            at: 0,
            content: Content::from(content),
            restarts,
        };
        let all = [
            revision(1, "a", 0),
            revision(2, "b", 0),
            revision(3, "b", 1),
            revision(4, "a", 1),
        ];
        let told: Vec<_> = all.iter().map(|it| origin(it, &all)).collect();
        let text = |text: &str| Some(text.to_owned());
        let undo = text("content of revision 1");
        assert_eq!(told, [None, None, text("restart of revision 2"), undo]);
    }
}
