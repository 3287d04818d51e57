//! Units: their names, their files, and their `[X-Fleet]` options.
//!
//! A file is read twice, on purpose. [`UnitFile`]'s assignments are what systemd sees, and every
//! decision is made from them. Its options are what fleet 1.0's library saw. They serve only
//! [`struct@Hash`] and the API. Neither is ever written back over a person's file: bytes in, bytes
//! out.

mod advice;
mod content;
mod difference;
mod file;
mod fleet_v1;
mod hash;
mod lines;
mod name;
mod option;
mod options;
mod policy;
mod service_type;
mod target;

pub use advice::{advice, needed};
pub use content::Content;
pub use difference::{Difference, Effect, difference, process_fingerprint};
pub use file::{Assignment, Note, Severity, UnitFile};
pub use fleet_v1::serialize;
pub use hash::Hash;
pub use name::{NAME_MAX, NameError, UnitKind, UnitName};
pub use option::UnitOption;
pub(crate) use options::expand;
pub use options::{CONFLICTS_MAX, FleetOptions, Misread, OptionsError, X_FLEET};
pub use policy::{MaxUnavailable, OnFailure, Policy, UpdateStrategy};
pub(crate) use service_type::truth;
pub use service_type::{ServiceType, service_type};
pub use target::TargetState;

/// A unit with its parsed file, so that the file is parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The unit's name. For an instance it is not its template's name.
    pub name: UnitName,
    /// The parsed file.
    pub file: UnitFile,
    /// The `[X-Fleet]` options.
    pub options: FleetOptions,
    /// The compatible hash.
    pub hash: Hash,
}

/// The reason for refusing a unit file. The texts are fleet 1.0's, with the line if there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// systemd or fleet 1.0 could not read the file.
    #[error("{0}")]
    Unreadable(Note),
    /// The file has no options.
    #[error("unit file is empty")]
    Empty,
    /// systemd would not let fleet start or stop the unit. Holds the option and its line.
    #[error("line {1}: {0}=yes: fleet starts and stops units by hand; remove the line")]
    Unmanageable(&'static str, usize),
    /// The `[X-Fleet]` section contradicts itself, or cannot be understood.
    #[error(transparent)]
    Options(#[from] OptionsError),
}

impl InvalidUnit {
    /// Returns the reason. If fleet 1.0 had no text for it, the unit's name comes first.
    pub fn for_unit(&self, name: &UnitName) -> String {
        match self {
            Self::Options(OptionsError::Misread(_)) | Self::Unmanageable(..) => {
                format!("{name} {self}; nothing was submitted")
            }
            worded => worded.to_string(),
        }
    }
}

impl Parsed {
    /// Reads a unit file. It never fails; see [`Parsed::validate`].
    pub fn parse(name: UnitName, content: &Content) -> Self {
        let file = UnitFile::parse(content.as_bytes());
        Self {
            options: FleetOptions::read(&name, &file),
            hash: Hash::of(file.options()),
            name,
            file,
        }
    }

    /// Checks that the unit may be submitted. Returns only the first problem.
    pub fn validate(&self) -> Result<(), InvalidUnit> {
        let mut notes = self.file.notes().iter();
        if let Some(note) = notes.find(|note| note.severity == Severity::Error) {
            return Err(InvalidUnit::Unreadable(note.clone()));
        }
        if self.file.assignments().is_empty() {
            return Err(InvalidUnit::Empty);
        }
        self.manageable()?;
        Ok(self.options.validate()?)
    }

    /// Refuses settings that make systemd refuse fleet's jobs: such a unit never starts, or never
    /// stops.
    fn manageable(&self) -> Result<(), InvalidUnit> {
        for key in ["RefuseManualStart", "RefuseManualStop"] {
            let mut assignments = self.file.assignments().iter().rev();
            let last = assignments.find(|it| it.section == "Unit" && it.key == key);
            if let Some(assignment) = last.filter(|it| advice::is_true(&it.value)) {
                return Err(InvalidUnit::Unmanageable(key, assignment.line));
            }
        }
        Ok(())
    }

    /// Returns the notes about the file and its `[X-Fleet]` section, ordered by line.
    pub fn notes(&self) -> Vec<&Note> {
        let mut notes: Vec<_> = self
            .file
            .notes()
            .iter()
            .chain(&self.options.notes)
            .collect();
        notes.sort_by_key(|note| note.line);
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(content: &str) -> Option<String> {
        let name = UnitName::parse("web.service").expect("valid");
        let unit = Parsed::parse(name, &Content::from(content));
        unit.validate().err().map(|error| error.to_string())
    }

    #[test]
    fn unit_is_refused_for_its_first_problem_only() {
        for (content, refusal) in [
            ("", "unit file is empty"),
            ("# a comment\n[Service]\n", "unit file is empty"),
            ("ExecStart=/bin/true\n", "unit file is empty"),
            (
                "[X-Fleet]\nGlobal=true\nMachineID=x\n[Service",
                "unable to find end of section (line 4)",
            ),
            (
                "[X-Fleet]\nGlobal=true\nMachineID=x\n",
                "MachineID cannot be used with Global",
            ),
        ] {
            assert_eq!(problem(content).as_deref(), Some(refusal));
        }
        let unknown = problem("=1\n[X-Fleet]\nColour=blue\n");
        let text = "line 3: unrecognized requirement in [X-Fleet] section: \"Colour\"";
        assert_eq!(unknown.as_deref(), Some(text));
    }

    #[test]
    fn unit_that_refuses_manual_jobs_is_refused() {
        for key in ["RefuseManualStart", "RefuseManualStop"] {
            for value in ["yes", "1", "True", "y"] {
                let refused = problem(&format!("[Unit]\n{key}={value}\n"));
                let text = format!(
                    "line 2: {key}=yes: fleet starts and stops units by hand; remove the line"
                );
                assert_eq!(refused, Some(text));
            }
            assert_eq!(problem(&format!("[Unit]\n{key}=yes\n{key}=no\n")), None);
        }
    }

    #[test]
    fn notes_of_file_and_section_are_ordered_by_line() {
        let content = Content::from("x=1\n[X-Fleet]\nConflicts=web\n[Unit]\n=1\n");
        let unit = Parsed::parse(UnitName::parse("web.service").expect("valid"), &content);
        let lines: Vec<_> = unit.notes().iter().map(|note| note.line).collect();
        assert_eq!(lines, [1, 3, 5]);
    }
}
