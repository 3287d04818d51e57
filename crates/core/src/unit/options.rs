//! The `[X-Fleet]` section of a unit: on which machines it runs, and beside which units it must
//! not.

use std::collections::{BTreeMap, BTreeSet};

use glob::Pattern;

use super::{Assignment, Note, Policy, Severity, UnitFile, UnitName};

const SECTION: &str = "X-Fleet";

/// All options of `[X-Fleet]`, the oldest spellings last.
pub const X_FLEET: [&str; 16] = [
    "Global",
    "MachineMetadata",
    "Conflicts",
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
    /// Metadata that a machine must have: every key, each with one of its values.
    pub machine_metadata: BTreeMap<String, BTreeSet<String>>,
    /// Names of units that it does not run beside.
    pub conflicts: Vec<Pattern>,
    /// The machine it runs on, as the file has it; it may be no valid id.
    pub machine_id: Option<String>,
    /// Units on whose machine it runs.
    pub machine_of: Vec<String>,
    /// Units that it makes room for by moving them away.
    pub replaces: Vec<String>,
    /// How updates of it are rolled out. A value that makes no sense is not taken, and refused by
    /// [`FleetOptions::validate`].
    pub policy: Policy,
    /// The first such value.
    pub nonsense: Option<OptionsError>,
    /// The notes about the section. Never an error: such an option is ignored.
    pub notes: Vec<Note>,
}

/// Options that cannot be followed. The texts about contradictions are fleet 1.0's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// These two exclude each other.
    #[error("{0} cannot be used with {1}")]
    Both(&'static str, &'static str),
    /// It must run beside a unit that it must not run beside.
    #[error("unresolvable requirements: peer {0:?} matches conflict {1:?}")]
    ConflictingPeer(String, String),
    /// No update could succeed.
    #[error("ProgressDeadlineSec must be longer than MinReadySec, or no update is ever in time")]
    NeverInTime,
    /// A value that its option does not have.
    #[error("{key}={value} makes no sense: {advice} (line {line})")]
    Nonsense {
        /// The line in the file, from 1.
        line: usize,
        /// The option.
        key: String,
        /// Its value.
        value: String,
        /// A valid value.
        advice: &'static str,
    },
}

impl FleetOptions {
    /// Reads the options that a file means for the unit of this name: for an instance, the instance's name
    /// and its template's file.
    ///
    /// As in fleet 1.0 and unlike in systemd's own sections, an empty assignment does not reset the
    /// option. A unit bound to a region must not run everywhere for a stray `MachineMetadata=`.
    pub fn read(name: &UnitName, file: &UnitFile) -> Self {
        let mut options = Self::default();
        // A unit binds to one machine: the newer spelling first, of each the first value.
        let mut machine_ids = [const { None::<String> }; 3];
        for assignment in file.assignments() {
            if assignment.section != SECTION {
                continue;
            }
            if !X_FLEET.contains(&&*assignment.key) {
                options.warn(
                    assignment,
                    format!(
                        "unrecognized requirement in [X-Fleet] section: {:?}",
                        assignment.key
                    ),
                );
                continue;
            }
            let values: Vec<String> = quoted_values(&assignment.value)
                .iter()
                .map(|value| expand(value, name))
                .collect();
            let words = values.iter().flat_map(|v| v.split_ascii_whitespace());
            let first = || values.first().cloned();
            match assignment.key.as_str() {
                "Global" => options.global = values.last().is_some_and(|value| is_true(value)),
                "MachineMetadata" | "X-ConditionMachineMetadata" => {
                    for value in &values {
                        options.require_metadata(assignment, value);
                    }
                }
                "Conflicts" | "X-Conflicts" => {
                    for word in words {
                        options.conflict_with(assignment, word);
                    }
                }
                "MachineID" => machine_ids[0] = machine_ids[0].take().or_else(first),
                "X-ConditionMachineID" => machine_ids[1] = machine_ids[1].take().or_else(first),
                "X-ConditionMachineBootID" => machine_ids[2] = machine_ids[2].take().or_else(first),
                "MachineOf" | "X-ConditionMachineOf" => {
                    options.machine_of.extend(words.map(str::to_owned));
                }
                "Replaces" => options.replaces.extend(words.map(str::to_owned)),
                // All that is left of the table is about updates.
                _ => options.set_policy(assignment, &expand(&assignment.value, name)),
            }
        }
        options.machine_id = machine_ids.into_iter().flatten().next();
        options
    }

    fn set_policy(&mut self, assignment: &Assignment, value: &str) {
        let value = value.trim();
        if let Err(advice) = self.policy.set(&assignment.key, value) {
            self.nonsense.get_or_insert(OptionsError::Nonsense {
                line: assignment.line,
                key: assignment.key.clone(),
                value: value.to_owned(),
                advice,
            });
        }
    }

    /// Refuses values that make no sense, and options that contradict each other.
    pub fn validate(&self) -> Result<(), OptionsError> {
        if let Some(nonsense) = &self.nonsense {
            return Err(nonsense.clone());
        }
        let min_ready = self.policy.min_ready.unwrap_or_default();
        if min_ready >= self.policy.progress_deadline {
            return Err(OptionsError::NeverInTime);
        }
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

    /// The first of its conflicts that the name of another unit matches.
    pub fn conflicting_pattern(&self, other: &str) -> Option<&str> {
        self.conflicts
            .iter()
            .find(|pattern| pattern.matches(other))
            .map(Pattern::as_str)
    }

    fn require_metadata(&mut self, assignment: &Assignment, value: &str) {
        match value.split_once('=') {
            Some((key, wanted))
                if !key.is_empty() && !wanted.is_empty() && !wanted.contains('=') =>
            {
                self.machine_metadata
                    .entry(key.to_owned())
                    .or_default()
                    .insert(wanted.to_owned());
            }
            _ => self.warn(
                assignment,
                format!(
                    "{} {value:?} is ignored: write key=value, or quote each of several",
                    assignment.key
                ),
            ),
        }
    }

    fn conflict_with(&mut self, assignment: &Assignment, word: &str) {
        match Pattern::new(&from_go_pattern(word)) {
            Ok(pattern) => self.conflicts.push(pattern),
            Err(error) => self.warn(
                assignment,
                format!("{} {word:?} is ignored: {}", assignment.key, error.msg),
            ),
        }
    }

    fn warn(&mut self, assignment: &Assignment, text: String) {
        self.notes.push(Note {
            line: assignment.line,
            severity: Severity::Warning,
            text,
        });
    }
}

/// The values of a line such as `"a=1 2" "b=3"`. A line that is not quoted at both ends is one value.
fn quoted_values(line: &str) -> Vec<String> {
    if !line.starts_with('"') || !line.ends_with('"') {
        return vec![line.to_owned()];
    }
    let mut quoted = false;
    let mut values = vec![String::new()];
    for c in line.chars() {
        match (c, values.last_mut()) {
            ('"', _) => quoted = !quoted,
            (c, Some(value)) if quoted || !c.is_ascii_whitespace() => value.push(c),
            _ => values.push(String::new()),
        }
    }
    values.retain(|value| !value.is_empty());
    values
}

fn is_true(value: &str) -> bool {
    ["true", "yes", "1", "on", "t"].contains(&value.to_ascii_lowercase().as_str())
}

/// An unknown specifier stays as it is, as in fleet 1.0; so does a template's `%i`, which has no
/// value yet.
fn expand(value: &str, name: &UnitName) -> String {
    let mut expanded = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        expanded += before;
        let (text, width) = match after.as_bytes().first() {
            Some(b'n') => (name.as_str(), 1),
            Some(b'N') => (name.stem(), 1),
            Some(b'p') => (name.prefix(), 1),
            Some(b'i') if !name.is_template() => (name.instance().unwrap_or_default(), 1),
            Some(b'%') => ("%", 1),
            _ => ("%", 0),
        };
        expanded += text;
        rest = &after[width..];
    }
    expanded + rest
}

/// fleet 1.0 matched with Go's `path.Match`. For unit names, which have no `/`, the glob crate
/// differs in three ways. It has no `\x` for a plain x, negates a class with `!`, and gives `**` a
/// meaning of its own.
fn from_go_pattern(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped) => glob += &Pattern::escape(&escaped.to_string()),
                // Malformed for Go, and so it must be here: an open class is.
                None => glob.push('['),
            },
            '^' if glob.ends_with('[') => glob.push('!'),
            '*' if glob.ends_with('*') => {}
            c => glob.push(c),
        }
    }
    glob
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, section: &str) -> FleetOptions {
        let file = UnitFile::parse(format!("[X-Fleet]\n{section}").as_bytes());
        FleetOptions::read(&UnitName::parse(name).expect("valid"), &file)
    }

    fn notes(options: &FleetOptions) -> Vec<String> {
        options.notes.iter().map(Note::to_string).collect()
    }

    #[test]
    fn the_last_global_wins_in_any_case() {
        for (section, global) in [
            ("Global=TRUE", true),
            ("Global=T", true),
            ("Global=\"no\" \"on\"", true),
            ("Global=no\nGlobal=1", true),
            ("Global=1\nGlobal=", false),
            ("Global=y", false),
            ("", false),
        ] {
            assert_eq!(read("a.service", section).global, global, "{section}");
        }
    }

    #[test]
    fn metadata_that_is_no_pair_is_ignored_aloud() {
        let options = read(
            "a.service",
            "MachineMetadata=a=1 b=2\nMachineMetadata=\"c=3\" \"d\" \\\n  \"e= 5\"\nMachineMetadata=f=\n",
        );
        assert_eq!(
            options.machine_metadata,
            BTreeMap::from([
                ("c".to_owned(), BTreeSet::from(["3".to_owned()])),
                ("e".to_owned(), BTreeSet::from([" 5".to_owned()])),
            ])
        );
        assert_eq!(
            notes(&options),
            [
                "MachineMetadata \"a=1 b=2\" is ignored: write key=value, or quote each of several (line 2)",
                "MachineMetadata \"d\" is ignored: write key=value, or quote each of several (line 3)",
                "MachineMetadata \"f=\" is ignored: write key=value, or quote each of several (line 5)",
            ]
        );
    }

    #[test]
    fn conflicts_match_as_in_the_original() {
        for (pattern, name, matches) in [
            ("web*.service", "web@1.service", true),
            ("web*.service", "aweb.service", false),
            ("web-?.service", "web-1.service", true),
            ("web-[^1].service", "web-1.service", false),
            ("web-[^1].service", "web-2.service", true),
            ("**.timer", "a.timer", true),
            ("dev\\*.service", "dev*.service", true),
            ("dev\\*.service", "device.service", false),
            ("dev\\\\x2d*", "dev\\x2da.swap", true),
            ("%p@*.service", "a@2.service", true),
        ] {
            let options = read("a@1.service", &format!("Conflicts={pattern}\n"));
            assert!(options.notes.is_empty(), "{pattern}: {:?}", options.notes);
            assert_eq!(
                options.conflicting_pattern(name).is_some(),
                matches,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_malformed_conflict_is_ignored_aloud() {
        let options = read("a.service", "Conflicts=web[.service b\\ ok.service\n");
        assert_eq!(
            options.conflicts,
            [Pattern::new("ok.service").expect("valid")]
        );
        assert_eq!(
            notes(&options),
            [
                "Conflicts \"web[.service\" is ignored: invalid range pattern (line 2)",
                "Conflicts \"b\\\\\" is ignored: invalid range pattern (line 2)",
            ]
        );
    }

    #[test]
    fn specifiers_name_the_unit() {
        let options = read(
            "a@b%.service".replace('%', "x").as_str(),
            "MachineOf=%n %N %p %i %%i %z %\n",
        );
        assert_eq!(
            options.machine_of,
            ["a@bx.service", "a@bx", "a", "bx", "%i", "%z", "%"]
        );
        assert_eq!(read("a.service", "MachineOf=<%i>").machine_of, ["<>"]);
        assert!(
            read("a@.service", "MachineMetadata=host=%i")
                .notes
                .is_empty()
        );
    }

    #[test]
    fn the_newest_spelling_of_a_machine_wins() {
        let options = read(
            "a.service",
            "X-ConditionMachineBootID=boot\nX-ConditionMachineID=old\nMachineID=one\nMachineID=two\n",
        );
        assert_eq!(options.machine_id.as_deref(), Some("one"));
        assert!(options.notes.is_empty());
    }

    #[test]
    fn contradictions_are_refused_in_the_originals_words() {
        for (section, text) in [
            (
                "Global=true\nMachineID=x",
                "MachineID cannot be used with Global",
            ),
            (
                "Global=true\nMachineOf=a.service",
                "Global cannot be used with Peers",
            ),
            (
                "Global=true\nReplaces=a.service",
                "Global cannot be used with Replaces",
            ),
            (
                "MachineID=x\nMachineOf=a.service",
                "MachineID cannot be used with Peers",
            ),
            (
                "MachineID=x\nConflicts=a*",
                "MachineID cannot be used with Conflicts",
            ),
            (
                "MachineOf=a.service\nConflicts=a*",
                "unresolvable requirements: peer \"a.service\" matches conflict \"a*\"",
            ),
        ] {
            let error = read("b.service", section).validate().expect_err(section);
            assert_eq!(error.to_string(), text);
        }
        let fine = "Global=true\nConflicts=a*\nMachineMetadata=a=b\n";
        let options = read("b.service", fine);
        assert_eq!(options.validate(), Ok(()));
    }

    #[test]
    fn rollout_options_are_known_and_others_are_not() {
        let known = "UpdateStrategy=all\nMaxUnavailable=1\nMinReadySec=1\nProgressDeadlineSec=1\nOnFailure=pause\n";
        let options = read("a.service", &format!("{known}Colour=blue"));
        assert_eq!(
            notes(&options),
            ["unrecognized requirement in [X-Fleet] section: \"Colour\" (line 7)"]
        );
    }
}
