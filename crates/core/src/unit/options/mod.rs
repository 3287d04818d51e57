//! The `[X-Fleet]` section of a unit: on which machines it runs, beside which units it must not,
//! and how it is updated.
//!
//! **Invariant: an option that cannot be understood never widens where a unit runs.** A file with
//! such an option is refused. A record may have one already, from an older version or another
//! writer. Such a record matches no machine if the option may have been a restriction.

mod unknown;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use glob::Pattern;

pub(crate) use self::unknown::is_only_ours;
pub(crate) use self::value::expand;
use self::value::{Advice, quoted_values};
use super::{Assignment, Note, Policy, Severity, TargetState, UnitFile, UnitName};
use crate::machine::Scheduling;

const SECTION: &str = "X-Fleet";

/// The largest number of patterns in a unit's `Conflicts=`. Every unit's name is compared with
/// each.
pub const CONFLICTS_MAX: usize = 100;

/// All options of `[X-Fleet]`, the oldest spellings last.
pub const X_FLEET: [&str; 18] = [
    "Global",
    "MachineMetadata",
    "Tolerates",
    "Conflicts",
    "Target",
    "UpdateStrategy",
    "MaxUnavailable",
    "MinReadySec",
    "ProgressDeadlineSec",
    "OnFailure",
    "MachineID",
    "MachineOf",
    "Replaces",
    "X-ConditionMachineID",
    "X-ConditionMachineOf",
    "X-ConditionMachineMetadata",
    "X-ConditionMachineBootID",
    "X-Conflicts",
];

/// The options of `[X-Fleet]`, with `%n %N %p %i %%` expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetOptions {
    /// Whether it runs on every machine that its metadata allows. The last `Global=` decides.
    pub global: bool,
    /// The metadata that a machine must have: every key, each with one of its values.
    pub machine_metadata: BTreeMap<String, BTreeSet<String>>,
    /// Whether a cordoned machine is like any other to it.
    pub tolerates_cordon: bool,
    /// The names of units that it does not run beside.
    pub conflicts: Vec<Pattern>,
    /// The machine it runs on, as written in the file. It may be no valid id.
    pub machine_id: Option<String>,
    /// The units whose machine it shares.
    pub machine_of: Vec<String>,
    /// The units that it replaces by moving them to other machines.
    pub replaces: Vec<String>,
    /// The target state that a units directory gives a new unit. `None` if the file does not set
    /// it.
    pub target: Option<TargetState>,
    /// The update policy, without the values that were misread.
    pub policy: Policy,
    /// The options that cannot be understood, ordered by line. [`FleetOptions::validate`] refuses
    /// them.
    pub misread: Vec<Misread>,
    /// The oddities in the section that are understood anyway.
    pub notes: Vec<Note>,
}

/// An option that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct Misread {
    /// The line in the file, from 1.
    pub line: usize,
    /// The option, its value, and the correction.
    pub text: String,
    /// Whether the option may have been meant to keep the unit off machines.
    pub restricts: bool,
}

/// The error for options that cannot be followed. The texts about contradictions are those of fleet
/// 1.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The two options exclude each other.
    #[error("{0} cannot be used with {1}")]
    Both(&'static str, &'static str),
    /// The unit must run beside a unit that it must not run beside.
    #[error("unresolvable requirements: peer {0:?} matches conflict {1:?}")]
    ConflictingPeer(String, String),
    /// The two times leave no update enough time to succeed.
    #[error("ProgressDeadlineSec must be longer than MinReadySec, or no update is ever in time")]
    NeverInTime,
    /// An option that cannot be followed.
    #[error(transparent)]
    Misread(#[from] Misread),
}

impl FleetOptions {
    /// Reads a file's options for the unit of this name. For an instance, these are the instance's
    /// name and its template's file.
    ///
    /// An empty assignment does not reset the option, as in fleet 1.0 and unlike in systemd's own
    /// sections. A unit bound to a region must not run everywhere because of a stray
    /// `MachineMetadata=`.
    pub fn read(name: &UnitName, file: &UnitFile) -> Self {
        let mut options = Self::default();
        // A unit binds to one machine. The newest spelling wins, with its first value.
        let mut machine_ids = [const { None::<String> }; 3];
        for assignment in file.assignments() {
            if assignment.section != SECTION {
                options.look_elsewhere(assignment);
                continue;
            }
            if !X_FLEET.contains(&&*assignment.key) {
                options.unknown(assignment);
                continue;
            }
            if let Err(advice) = value::checked(&assignment.value) {
                options.misread(assignment, &assignment.value, advice);
                continue;
            }
            let values: Vec<String> = quoted_values(&assignment.value)
                .iter()
                .map(|value| expand(value, name))
                .collect();
            let words = || values.iter().flat_map(|v| v.split_ascii_whitespace());
            match assignment.key.as_str() {
                "Global" => {
                    for value in &values {
                        match value::boolean(value) {
                            Ok(global) => options.global = global,
                            Err(advice) => options.misread(assignment, value, advice),
                        }
                    }
                }
                "MachineMetadata" | "X-ConditionMachineMetadata" => {
                    for value in &values {
                        options.require_metadata(assignment, value);
                    }
                }
                "Tolerates" => {
                    for word in words() {
                        match word {
                            "cordon" => options.tolerates_cordon = true,
                            _ => options.misread(assignment, word, "write cordon"),
                        }
                    }
                }
                "Conflicts" | "X-Conflicts" => {
                    for word in words() {
                        options.conflict_with(assignment, word, name);
                    }
                }
                key @ ("MachineID" | "X-ConditionMachineID" | "X-ConditionMachineBootID") => {
                    let at = match key {
                        "MachineID" => 0,
                        "X-ConditionMachineID" => 1,
                        _ => 2,
                    };
                    for value in &values {
                        let known = value::machine_id(value, name);
                        options.demand(known, assignment, value);
                    }
                    machine_ids[at] = machine_ids[at].take().or_else(|| values.first().cloned());
                }
                "MachineOf" | "X-ConditionMachineOf" => {
                    for word in words() {
                        options.demand(value::unit_name(word, name), assignment, word);
                        options.machine_of.push(word.to_owned());
                    }
                }
                "Replaces" => {
                    for word in words() {
                        options.demand(value::pattern(word, name).map(drop), assignment, word);
                        options.replaces.push(word.to_owned());
                    }
                }
                "Target" => options.set_target(assignment),
                // The rest of the table is about updates.
                _ => {
                    let value = expand(&assignment.value, name);
                    let set = options.policy.set(&assignment.key, value.trim());
                    options.demand(set, assignment, value.trim());
                }
            }
        }
        options.machine_id = machine_ids.into_iter().flatten().next();
        options
    }

    fn set_target(&mut self, assignment: &Assignment) {
        match TargetState::parse(&assignment.value) {
            Some(target) if target != TargetState::Inactive => self.target = Some(target),
            _ => self.misread(assignment, &assignment.value, "write loaded or launched"),
        }
    }

    /// Refuses options that cannot be understood, and options that contradict each other.
    pub fn validate(&self) -> Result<(), OptionsError> {
        self.contradiction()?;
        if let Some(misread) = self.misread.first() {
            return Err(misread.clone().into());
        }
        let min_ready = self.policy.min_ready.unwrap_or_default();
        if min_ready >= self.policy.progress_deadline {
            return Err(OptionsError::NeverInTime);
        }
        Ok(())
    }

    /// Returns the misread option that keeps the unit off all machines, because it may have been a
    /// restriction.
    pub fn unreadable(&self) -> Option<&Misread> {
        self.misread.iter().find(|misread| misread.restricts)
    }

    /// Returns what a machine's scheduling means for the unit. A unit that tolerates a cordon
    /// starts there, and is updated there.
    pub fn scheduling_on(&self, scheduling: Scheduling) -> Scheduling {
        match scheduling {
            Scheduling::Cordoned if self.tolerates_cordon => Scheduling::Normal,
            scheduling => scheduling,
        }
    }

    fn contradiction(&self) -> Result<(), OptionsError> {
        for peer in &self.machine_of {
            if let Some(conflict) = self.conflicting_pattern(peer) {
                return Err(OptionsError::ConflictingPeer(
                    peer.clone(),
                    conflict.to_owned(),
                ));
            }
        }
        let global = ("Global", self.global);
        let machine = ("MachineID", self.machine_id.is_some());
        let peers = ("Peers", !self.machine_of.is_empty());
        let conflicts = ("Conflicts", !self.conflicts.is_empty());
        let replaces = ("Replaces", !self.replaces.is_empty());
        for (one, other) in [
            (machine, peers),
            (machine, conflicts),
            (machine, global),
            (global, peers),
            (global, replaces),
        ] {
            if one.1 && other.1 {
                return Err(OptionsError::Both(one.0, other.0));
            }
        }
        Ok(())
    }

    /// Returns the unit's first conflict that matches the name of another unit.
    pub fn conflicting_pattern(&self, other: &str) -> Option<&str> {
        self.conflicts
            .iter()
            .find(|pattern| pattern.matches(other))
            .map(Pattern::as_str)
    }

    fn require_metadata(&mut self, assignment: &Assignment, value: &str) {
        match value::pair(value) {
            Ok((key, wanted)) => {
                let values = self.machine_metadata.entry(key.to_owned()).or_default();
                values.insert(wanted.to_owned());
            }
            Err(advice) => self.misread(assignment, value, advice),
        }
    }

    fn conflict_with(&mut self, assignment: &Assignment, word: &str, name: &UnitName) {
        match value::pattern(word, name) {
            Ok(pattern) if self.conflicts.len() < CONFLICTS_MAX => {
                let glob = word.contains(['*', '?', '[', '\\', '%']);
                if !glob && UnitName::parse(word).is_err() {
                    let text = format!(
                        "{} {word:?} matches no unit: names end in .service and the like",
                        assignment.key
                    );
                    self.notes.push(Note {
                        line: assignment.line,
                        severity: Severity::Warning,
                        text,
                    });
                }
                self.conflicts.push(pattern);
            }
            Ok(_) if self.misread.iter().any(|it| it.line == assignment.line) => {}
            Ok(_) => self.misread(assignment, word, TOO_MANY),
            Err(advice) => self.misread(assignment, word, advice),
        }
    }

    /// Records an option in another section that was meant for fleet.
    fn look_elsewhere(&mut self, assignment: &Assignment) {
        let Assignment {
            section, key, line, ..
        } = assignment;
        let text = if unknown::is_nearly_ours(section) {
            let section = shortened(section);
            format!("nothing reads the section [{section}]; write [{SECTION}]")
        } else if unknown::is_misplaced(section, key) {
            format!("{key} stands in [{section}], where nothing reads it; move it to [{SECTION}]")
        } else {
            return;
        };
        self.misread.push(Misread {
            line: *line,
            text,
            restricts: unknown::restricts(key),
        });
    }

    fn unknown(&mut self, assignment: &Assignment) {
        let key = &assignment.key;
        let meant = unknown::nearest(key);
        let hint = meant.map(|meant| format!("; did you mean {meant}?"));
        self.misread.push(Misread {
            line: assignment.line,
            // The words of fleet 1.0, which accepted the unit anyway.
            text: format!(
                "unrecognized requirement in [X-Fleet] section: {:?}{}",
                shortened(key),
                hint.unwrap_or_default()
            ),
            restricts: meant.is_some_and(unknown::restricts),
        });
    }

    fn demand(&mut self, known: Result<(), Advice>, assignment: &Assignment, value: &str) {
        if let Err(advice) = known {
            self.misread(assignment, value, advice);
        }
    }

    fn misread(&mut self, assignment: &Assignment, value: &str, advice: Advice) {
        let key = &assignment.key;
        let empty_list = key.ends_with("Conflicts") && value.is_empty();
        self.misread.push(Misread {
            line: assignment.line,
            text: format!("{key} {:?}: {advice}", shortened(value)),
            // An empty list of conflicts excludes nothing.
            restricts: unknown::restricts(key) && !empty_list,
        });
    }
}

/// Returns the beginning of a text, long enough to find it in the file.
fn shortened(text: &str) -> String {
    const WIDTH: usize = 80;
    let mut short: String = text.chars().take(WIDTH).collect();
    if short.len() < text.len() {
        short += "...";
    }
    short
}

const TOO_MANY: Advice = "a unit may have 100 patterns of Conflicts at most";

#[cfg(test)]
mod tests;
