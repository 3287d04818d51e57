//! Decides what a units directory publishes: its files, compared with its last publication and the
//! registry.
//!
//! ```text
//! files now  --+
//! published  --+--> decide --> Act: disown, publish, adopt, with reasons; problems; notes
//! registry   --+           \-> Held: nothing at all, with the reason
//! ```
//!
//! **Invariant: only a change against the last publication of this directory is ever published.**
//! So two directories with the same files agree, and two with different files do not fight. A unit
//! that was destroyed or rolled back stays so until its file changes.
//!
//! **Invariant: a first look at a directory changes nothing that the fleet has decided.** The files
//! may come from an old disk image. They are adopted, or create units that never existed; all
//! others are problems.
//!
//! **Invariant: a unit is given up only if its file is missing from a directory that is itself in
//! order.** A file that cannot be read is not missing, and neither is one in a directory that lost
//! its marker.

mod published;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

pub use self::published::{Known, Last, PassedOver, Published, lost};

use crate::record::CONTENT_MAX;
use crate::unit::{Content, TargetState, UnitName};

/// The file that says: this is the directory, not the empty mount point below it. Hidden, so that
/// it is never taken for a unit.
pub const MARKER: &str = ".fleet";

/// The SHA-1 of a unit file's bytes, in hexadecimal: enough to distinguish revisions of one unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a content.
    pub fn of(content: &Content) -> Self {
        let digest = Sha1::digest(content.as_bytes());
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// One entry of the directory, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// A whole file. The reader may stop after [`CONTENT_MAX`] and one byte.
    Content(Content),
    /// There, and not looked into this time, because of this.
    Skipped(&'static str),
    /// A directory, such as `x.service.d`.
    Directory,
    /// There, but cannot be read, because of this.
    Unreadable(String),
    /// There, but others than root may change it, because of this.
    Untrusted(String),
}

/// The directory as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// There is none.
    Missing,
    /// It cannot be listed, because of this.
    Unreadable(String),
    /// Others than root may change it, because of this.
    Untrusted(String),
    /// It was listed.
    Present {
        /// Whether the [`MARKER`] is there.
        marked: bool,
        /// Its entries by name, without the marker.
        files: BTreeMap<String, File>,
    },
}

/// The meaning of the name of a directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A unit file.
    Unit(UnitName),
    /// Hidden, or left by an editor for a moment; it is never reported.
    Ignored,
    /// Neither, because of this.
    Bad(String),
}

/// Reads the name of a directory entry.
pub fn named(name: &str) -> Named {
    let backup =
        name.ends_with('~') || name.len() > 1 && name.starts_with('#') && name.ends_with('#');
    // vim asks whether a directory is writable by making a file called 4913, or a higher number.
    let probe = name.bytes().all(|byte| byte.is_ascii_digit());
    if name.starts_with('.') || backup || probe {
        return Named::Ignored;
    }
    match UnitName::parse(name) {
        Ok(name) => Named::Unit(name),
        Err(error) => Named::Bad(format!("not a unit file: {error}; rename or move it")),
    }
}

/// Why a unit is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This directory never published it.
    Appeared,
    /// It is not what this directory last published.
    Changed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Appeared => "its file appeared",
            Self::Changed => "its file changed",
        })
    }
}

/// One thing to do at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give up ownership: the file is gone. The unit is destroyed if it has no other owner.
    Disown(UnitName),
    /// Submit this content, and own the unit.
    Publish {
        /// The unit.
        name: UnitName,
        /// Its file.
        content: Content,
        /// The target state of the unit if it is new.
        target: TargetState,
        /// The reason.
        why: Why,
    },
    /// The registry has exactly this content: own the unit too.
    Adopt(UnitName, Fingerprint),
    /// The fleet decided otherwise: only remember that it was seen.
    PassOver(UnitName, Fingerprint, PassedOver),
}

impl Action {
    /// The unit it is about.
    pub fn name(&self) -> &UnitName {
        match self {
            Self::Disown(name)
            | Self::Adopt(name, _)
            | Self::PassOver(name, ..)
            | Self::Publish { name, .. } => name,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disown(name) => write!(f, "disown {name}: its file is gone"),
            Self::Adopt(name, _) => write!(f, "adopt {name}: the registry has this content"),
            Self::PassOver(name, _, why) => write!(f, "pass over {name}: {why}"),
            Self::Publish { name, why, .. } => write!(f, "publish {name}: {why}"),
        }
    }
}

/// Why a directory is left alone as a whole. Nothing is published and nothing given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is gone, and units came from it.
    Missing,
    /// It cannot be listed.
    Unreadable(String),
    /// Others than root may change it.
    Untrusted(String),
    /// Its marker is gone: another directory may lie there now.
    Unmarked,
    /// So many published units, two at least, are gone, and no unit file is left.
    Emptied(usize),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing; put it back")?,
            Self::Unreadable(reason) => write!(f, "cannot be listed: {reason}")?,
            Self::Untrusted(reason) => write!(f, "is not read: {reason}")?,
            Self::Unmarked => write!(
                f,
                "has lost its marker; if this is the right directory, make the file {MARKER} in it"
            )?,
            Self::Emptied(gone) => write!(
                f,
                "had {gone} unit files and has none now; put them back, or destroy the units with fleetctl"
            )?,
        }
        f.write_str(". Until then its units are kept as they are")
    }
}

/// The actions for a units directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing at all.
    Held(Held),
    /// These things.
    Act {
        /// In this order: removals make room for additions.
        actions: Vec<Action>,
        /// Files that a person must fix, with the problem.
        problems: BTreeMap<String, String>,
        /// Files that are left alone on purpose, with the reason.
        notes: BTreeMap<String, String>,
    },
}

/// Why the directory is not in order, going by what it published.
pub fn held(published: &Published, directory: &Directory) -> Option<Held> {
    let (marked, files) = match directory {
        Directory::Unreadable(reason) => return Some(Held::Unreadable(reason.clone())),
        Directory::Untrusted(reason) => return Some(Held::Untrusted(reason.clone())),
        // Most machines have no units directory, and nothing to lose by that.
        _ if published.units.is_empty() => return None,
        Directory::Missing => return Some(Held::Missing),
        Directory::Present { marked, files } => (*marked, files),
    };
    if published.marked && !marked {
        return Some(Held::Unmarked);
    }
    let left = |name: &String| matches!(named(name), Named::Unit(_));
    let emptied = published.units.len() >= 2 && !files.keys().any(left);
    emptied.then_some(Held::Emptied(published.units.len()))
}

/// Returns the units that `decide` must look up in the registry: those whose file differs from the
/// last publication, or all of an emptied directory. None while nothing changes, so that an idle
/// directory asks nothing.
pub fn questions(published: &Published, directory: &Directory) -> Vec<UnitName> {
    let files = match (held(published, directory), directory) {
        (Some(Held::Emptied(_)), _) => return published.units.keys().cloned().collect(),
        (None, Directory::Present { files, .. }) => files,
        _ => return Vec::new(),
    };
    let asked = files
        .iter()
        .filter_map(|(name, file)| match (named(name), file) {
            (Named::Unit(name), File::Content(content)) => {
                let last = published.units.get(&name).map(|last| &last.content);
                (last != Some(&Fingerprint::of(content))).then_some(name)
            }
            _ => None,
        });
    asked.collect()
}

/// Decides what to publish, adopt and disown.
///
/// `known` answers [`questions`]; a name that is not in it is unknown to the registry. `check` says
/// why a content may not be launched from a directory, such as `not global`.
pub fn decide(
    published: &Published,
    directory: &Directory,
    known: &BTreeMap<UnitName, Known>,
    check: impl Fn(&UnitName, &Content) -> Result<(), String>,
) -> Decision {
    match held(published, directory) {
        // Its units were destroyed meanwhile: nothing is left to hold.
        Some(Held::Emptied(_)) if !published.units.keys().any(|it| exists(known.get(it))) => {}
        Some(held) => return Decision::Held(held),
        None => {}
    }
    let nothing = BTreeMap::new();
    let files = match directory {
        Directory::Present { files, .. } => files,
        _ => &nothing,
    };
    let gone = published
        .units
        .keys()
        .filter(|name| !files.contains_key(name.as_str()));
    let mut actions: Vec<_> = gone.cloned().map(Action::Disown).collect();
    let mut problems = BTreeMap::new();
    let mut notes = BTreeMap::new();
    let triggered = target::started(files);
    for (entry, file) in files {
        let name = match named(entry) {
            Named::Unit(name) => name,
            Named::Ignored => continue,
            Named::Bad(_) if *file == File::Directory => {
                notes.insert(entry.clone(), DIRECTORY_IGNORED.to_owned());
                continue;
            }
            Named::Bad(reason) => {
                problems.insert(entry.clone(), reason);
                continue;
            }
        };
        let found = Found {
            name: &name,
            last: published.units.get(&name),
            known: known.get(&name),
            is_first_look: !published.seen,
            triggered: &triggered,
        };
        match found.unit(file, &check) {
            Verdict::Leave => {}
            Verdict::Do(action) => actions.push(action),
            Verdict::Note(text) => {
                notes.insert(entry.clone(), text.to_owned());
            }
            Verdict::Problem(text) => {
                problems.insert(entry.clone(), text);
            }
        }
    }
    actions.sort_by_key(target::turn);
    Decision::Act {
        actions,
        problems,
        notes,
    }
}

fn exists(known: Option<&Known>) -> bool {
    known.is_some_and(|known| known.newest.is_some())
}

const DIRECTORY_IGNORED: &str = "a directory; only files are published";

/// The decision about one unit file.
enum Verdict {
    Leave,
    Do(Action),
    Note(&'static str),
    Problem(String),
}

/// A unit file, and what is known of its unit.
struct Found<'a> {
    name: &'a UnitName,
    last: Option<&'a Last>,
    known: Option<&'a Known>,
    is_first_look: bool,
    triggered: &'a BTreeSet<UnitName>,
}

impl Found<'_> {
    fn unit(
        &self,
        file: &File,
        check: impl Fn(&UnitName, &Content) -> Result<(), String>,
    ) -> Verdict {
        let content = match file {
            File::Content(content) => content,
            File::Skipped(reason) => return Verdict::Note(reason),
            File::Directory => return Verdict::Note(DIRECTORY_IGNORED),
            File::Unreadable(reason) => {
                return Verdict::Problem(format!("cannot be read: {reason}"));
            }
            File::Untrusted(reason) => {
                return Verdict::Problem(format!("is not read: {reason}"));
            }
        };
        let fingerprint = Fingerprint::of(content);
        match self.last {
            Some(last) if last.content == fingerprint && last.stale => {
                return Verdict::Problem(last.why.unwrap_or_default().to_string());
            }
            Some(last) if last.content == fingerprint => return Verdict::Leave,
            _ => {}
        }
        if content.as_bytes().len() > CONTENT_MAX {
            return Verdict::Problem(format!(
                "too large: a unit file has at most {CONTENT_MAX} bytes"
            ));
        }
        if let Err(reason) = check(self.name, content) {
            return Verdict::Problem(reason);
        }
        let name = self.name.clone();
        if self
            .known
            .is_some_and(|known| known.newest.as_ref() == Some(&fingerprint))
        {
            return Verdict::Do(Action::Adopt(name, fingerprint));
        }
        if let Some(why) = self.passed_over(&fingerprint) {
            return Verdict::Do(Action::PassOver(name, fingerprint, why));
        }
        Verdict::Do(Action::Publish {
            name,
            content: content.clone(),
            target: target::wanted(self.name, content, self.triggered),
            why: if self.last.is_some() {
                Why::Changed
            } else {
                Why::Appeared
            },
        })
    }

    /// Why a content that is not the newest is not published.
    fn passed_over(&self, fingerprint: &Fingerprint) -> Option<PassedOver> {
        let known = self.known?;
        let Some(newest) = &known.newest else {
            return self.is_first_look.then_some(PassedOver::Destroyed);
        };
        // What was rolled back is known to be bad, whichever directory has seen that: only another
        // content is published.
        if known.rolled_back.contains(fingerprint) {
            return Some(PassedOver::RolledBack);
        }
        // A person who goes back on purpose starts from the newest. A directory that has not seen
        // it has a late copy.
        let seen_newest = self.last.is_some_and(|last| last.content == *newest);
        if !seen_newest && known.older.contains(fingerprint) {
            return Some(PassedOver::Older);
        }
        self.is_first_look.then_some(PassedOver::New)
    }
}

#[cfg(test)]
mod tests;
