//! A unit file as systemd reads it, with notes on its faults.
//!
//! The rules are those of systemd 252. The corpus in `tests/systemd/` compares each rule with the
//! real systemd:
//!
//! * First, lines are joined and comments dropped, as [`lines`](super::lines) describes.
//! * A line without `=`, without a name before it, or outside a section is ignored.
//! * A line that is not UTF-8, even in `[X-Fleet]`, makes systemd reject the file from there on. So
//!   does a malformed section header.

use std::fmt;

use super::lines::{BLANKS, joined_lines};
use super::options::is_only_ours;
use super::{UnitOption, fleet_v1};

/// The severity of a [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// systemd ignores this part; the rest of the file counts.
    Warning,
    /// The file must not be accepted: systemd or fleet 1.0 refuses it.
    Error,
}

/// A fault in a unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line, counted from 1. For a continued line it is the first one.
    pub line: usize,
    /// The severity.
    pub severity: Severity,
    /// The problem and its effect, in the words of fleet 1.0 if it had any.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {})", self.text, self.line)
    }
}

/// One `Key=value` of a unit file, as systemd sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The section, without brackets.
    pub section: String,
    /// The text before the first `=`, without the blanks around it.
    pub key: String,
    /// The text after it, without surrounding blanks, with continuations joined. Quotes, escapes
    /// and specifiers are kept.
    pub value: String,
    /// The line, counted from 1. For a continued line it is the first one.
    pub line: usize,
}

/// A parsed unit file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFile {
    assignments: Vec<Assignment>,
    options: Vec<UnitOption>,
    notes: Vec<Note>,
}

impl UnitFile {
    /// Reads a unit file. It never fails: unusable parts become notes.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut file = Self {
            options: fleet_v1::options(bytes),
            ..Self::default()
        };
        let lines = joined_lines(bytes);
        let mut section = None;
        for (line, bytes) in &lines {
            let Some(text) = text(bytes) else {
                file.note(
                    *line,
                    Severity::Error,
                    "not UTF-8: systemd refuses the file",
                );
                break;
            };
            if let Some(header) = text.strip_prefix('[') {
                match section_name(header) {
                    Ok(name) => section = Some(name),
                    Err(problem) => {
                        file.note(*line, Severity::Error, problem);
                        break;
                    }
                }
            } else if !text.is_empty() {
                file.assign(*line, section, text);
            }
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            file.note(line, Severity::Error, "a NUL byte: a unit file is text");
        }
        file.notes.sort_by_key(|note| note.line);
        file
    }

    fn assign(&mut self, line: usize, section: Option<&str>, text: &str) {
        let meant_for_fleet = |key: &str| is_only_ours(key.trim_end_matches(BLANKS));
        match (section, text.split_once('=')) {
            // An ignored line must not decide where a unit runs.
            (None, Some((key, _))) if meant_for_fleet(key) => self.note(
                line,
                Severity::Error,
                "a fleet option before the first section: move it to [X-Fleet]",
            ),
            (Some("X-Fleet"), Some(("", _))) => self.note(
                line,
                Severity::Error,
                "no option name before \"=\" in [X-Fleet]",
            ),
            (None, _) => self.note(
                line,
                Severity::Warning,
                "a line before the first section: systemd ignores it",
            ),
            // systemd ignores such a line. fleet 1.0 refused the file, and so does fleet.
            (_, None) => self.note(
                line,
                Severity::Error,
                "unexpected newline encountered while parsing option name",
            ),
            (_, Some(("", _))) => self.note(
                line,
                Severity::Warning,
                "no option name before \"=\": systemd ignores this line",
            ),
            (Some(section), Some((key, value))) => self.assignments.push(Assignment {
                section: section.to_owned(),
                key: key.trim_end_matches(BLANKS).to_owned(),
                value: value.trim_start_matches(BLANKS).to_owned(),
                line,
            }),
        }
    }

    fn note(&mut self, line: usize, severity: Severity, text: impl Into<String>) {
        self.notes.push(Note {
            line,
            severity,
            text: text.into(),
        });
    }

    /// Returns all assignments of the file, in order.
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// Returns the options as fleet 1.0's library read them. They are for its hash and its API,
    /// never for decisions.
    pub fn options(&self) -> &[UnitOption] {
        &self.options
    }

    /// Returns the notes about the file.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Returns all values of a list setting, in order. An empty assignment drops those before it.
    /// All lists of systemd do this, except dependencies (`After=` and similar).
    pub fn values(&self, section: &str, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for value in self.assigned(section, key) {
            if value.is_empty() {
                values.clear();
            } else {
                values.push(value);
            }
        }
        values
    }

    /// Returns the value of a single-valued setting: the last assignment wins. `None` if it is
    /// empty.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.assigned(section, key)
            .next_back()
            .filter(|value| !value.is_empty())
    }

    /// Returns the `Description=` with its specifiers unexpanded; empty if there is none.
    pub fn description(&self) -> &str {
        self.last("Unit", "Description").unwrap_or_default()
    }

    /// Returns all values assigned to a setting, including empty ones.
    pub(super) fn assigned(
        &self,
        section: &str,
        key: &str,
    ) -> impl DoubleEndedIterator<Item = &str> {
        self.assignments
            .iter()
            .filter(move |found| found.section == section && found.key == key)
            .map(|found| found.value.as_str())
    }
}

/// Returns the line without surrounding blanks. `None` if systemd refuses its characters: invalid
/// UTF-8, and noncharacters such as U+FFFE.
fn text(line: &[u8]) -> Option<&str> {
    let noncharacter = |c| matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    std::str::from_utf8(line)
        .ok()
        .filter(|text| !text.contains(noncharacter))
        .map(|text| text.trim_matches(BLANKS))
}

/// Returns the name in a section header, given the text after its `[`. Fails with the objection of
/// systemd or fleet 1.0.
fn section_name(header: &str) -> Result<&str, String> {
    let Some((name, garbage)) = header.split_once(']') else {
        return Err("unable to find end of section".to_owned());
    };
    if !garbage.is_empty() {
        // fleet 1.0 omitted the name and printed bytes. Scripts may look for that text.
        let bytes: Vec<String> = garbage.trim().bytes().map(|b| b.to_string()).collect();
        return Err(format!(
            "found garbage after section name : [{}]",
            bytes.join(" ")
        ));
    }
    if name.contains(|c: char| c.is_ascii_control() || "\"'\\".contains(c)) {
        return Err("bad characters in section name".to_owned());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn notes(text: &[u8]) -> Vec<String> {
        UnitFile::parse(text)
            .notes()
            .iter()
            .map(|note| format!("{:?}: {note}", note.severity))
            .collect()
    }

    #[test]
    fn empty_assignment_resets_a_list_and_last_value_wins() {
        let file = UnitFile::parse(
            b"[Service]\nExecStart=/a\nExecStart=\nExecStart=/b\n[Unit]\nDescription=x\n\
            [Service]\nExecStart=/c\n[Unit]\nDescription=\n",
        );
        assert_eq!(file.values("Service", "ExecStart"), ["/b", "/c"]);
        assert_eq!(file.last("Service", "ExecStart"), Some("/c"));
        assert_eq!(file.last("Unit", "Description"), None);
        assert_eq!(file.description(), "");
        assert!(file.notes().is_empty());
    }

    #[test]
    fn continued_value_has_its_first_line() {
        let file = UnitFile::parse(b"[A]\r\n# c\r\nk=1 \\\r\n; c\r\n  2\r\nl=3");
        let found: Vec<_> = file
            .assignments()
            .iter()
            .map(|a| (a.line, a.key.as_str(), a.value.as_str()))
            .collect();
        assert_eq!(found, [(3, "k", "1    2"), (6, "l", "3")]);
    }

    #[test]
    fn file_refused_by_systemd_or_fleet_1_0_is_an_error() {
        for (text, note) in [
            (
                &b"[Service"[..],
                "Error: unable to find end of section (line 1)",
            ),
            (
                b"\n[Service] foo\n",
                "Error: found garbage after section name : [102 111 111] (line 2)",
            ),
            (
                b"[Service]\nfoo\n",
                "Error: unexpected newline encountered while parsing option name (line 2)",
            ),
            (
                b"[Service]\nk=a\0b\n",
                "Error: a NUL byte: a unit file is text (line 2)",
            ),
            (
                b"[Service]\n# \xff\nk=\xff\n",
                "Error: not UTF-8: systemd refuses the file (line 3)",
            ),
            (
                b"[Ser\"vice]\n",
                "Error: bad characters in section name (line 1)",
            ),
        ] {
            assert_eq!(notes(text)[0], note, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn line_ignored_by_systemd_is_a_warning() {
        assert_eq!(
            notes(b"k=1\n[A]\n=2\n"),
            [
                "Warning: a line before the first section: systemd ignores it (line 1)",
                "Warning: no option name before \"=\": systemd ignores this line (line 3)",
            ]
        );
    }

    #[test]
    fn lines_after_a_malformed_header_are_ignored() {
        let file = UnitFile::parse(b"[A]\nk=1\n[B\nl=2\n[C]\nm=3\n");
        assert_eq!(file.assignments().len(), 1);
    }

    #[test]
    fn line_longer_than_fleet_1_0_allowed_is_read() {
        let long = "x".repeat(100_000);
        let file = UnitFile::parse(format!("[Unit]\nDescription={long}\n").as_bytes());
        assert_eq!(file.description(), long);
        assert_eq!(file.options()[0].value, long);
        assert!(file.notes().is_empty());
    }

    proptest! {
        #[test]
        fn parsing_any_bytes_never_panics(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(&b"[]=\\\n\r\0 #;k\xef\xbb\xbf"[..])],
                0..300,
            ),
        ) {
            let file = UnitFile::parse(&bytes);
            prop_assert!(file.notes().iter().all(|note| note.line > 0));
        }
    }
}
