//! The content of one source of configuration: a file, the environment, or the flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};

use super::options::{self, VARIABLE_PREFIX};
use super::{Note, Problem};

/// The place where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No place: the default.
    Default,
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag, without its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A value as it was written, before it is parsed.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// The text, without quotes around it. It may be a secret, so it has no `Debug`.
    pub text: String,
    /// The place where it was written.
    pub origin: Origin,
}

/// The values of one source, by option.
#[derive(Clone, Default)]
pub struct Fragment {
    /// The values of known options.
    pub values: BTreeMap<&'static str, Written>,
    /// The problems: values that cannot be used.
    pub problems: Vec<Problem>,
    /// Notes for the operator.
    pub notes: Vec<Note>,
}

impl Fragment {
    /// Reads the text of a configuration file: INI without sections.
    ///
    /// Each line is read separately. So a bad line affects no other, and every problem names its
    /// line.
    pub fn from_file(path: &Path, bytes: &[u8]) -> Self {
        let mut fragment = Self::default();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let origin = Origin::File(path.to_owned(), index + 1);
            match read_line(line) {
                Ok(None) => {}
                Ok(Some((key, text))) => fragment.set_from_file(&key, text, origin),
                Err(what) => fragment.problems.push(Problem(format!("{origin}: {what}"))),
            }
        }
        fragment
    }

    fn set_from_file(&mut self, key: &str, text: String, origin: Origin) {
        let Some(option) = options::find(key) else {
            self.problems.push(Problem(format!(
                "unknown option `{key}` in {origin}{}",
                suggestion(options::nearest(key).map(str::to_owned)).unwrap_or_default()
            )));
            return;
        };
        if let Some(earlier) = self.values.get(option.name) {
            self.notes.push(Note(format!(
                "{key} in {origin} replaces the one in {}",
                earlier.origin
            )));
        }
        self.values.insert(option.name, Written { text, origin });
    }

    /// Reads the environment. Variables that are not fleetd's are ignored.
    pub fn from_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut fragment = Self::default();
        for (variable, value) in variables {
            let Some(variable) = variable.to_str() else {
                continue;
            };
            let Some(name) = variable.strip_prefix(VARIABLE_PREFIX) else {
                continue;
            };
            let origin = Origin::Variable(variable.to_owned());
            let key = name.to_lowercase();
            match (options::find(&key), value.into_string()) {
                (Some(option), Ok(text)) if option.variable() == variable => {
                    fragment
                        .values
                        .insert(option.name, Written { text, origin });
                }
                (Some(_), Err(_)) => fragment
                    .problems
                    .push(Problem(format!("{origin} is not UTF-8"))),
                // It is an error in a file. An environment is shared, and others may set such
                // names.
                _ => {
                    let meant = options::nearest(&key).and_then(options::find);
                    fragment.notes.push(Note(format!(
                        "{origin} is not an option of fleetd and has no effect{}",
                        suggestion(meant.map(options::Opt::variable)).unwrap_or_default()
                    )));
                }
            }
        }
        fragment
    }

    /// Reads the flags, by option.
    pub fn from_flags(flags: &BTreeMap<&'static str, String>) -> Self {
        let values = flags.iter().filter_map(|(name, text)| {
            let option = options::find(name)?;
            let origin = Origin::Flag(option.flag());
            let text = text.clone();
            Some((option.name, Written { text, origin }))
        });
        Self {
            values: values.collect(),
            ..Self::default()
        }
    }
}

fn suggestion(meant: Option<String>) -> Option<String> {
    meant.map(|name| format!("; did you mean `{name}`?"))
}

const MALFORMED: &str = "not of the form key=value, or a quote is not closed";

/// Returns the key and the value of a line. `None` for a blank line or a comment.
fn read_line(line: &[u8]) -> Result<Option<(String, String)>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    if line.starts_with('[') {
        return Err(format!(
            "`{line}` looks like a section; fleet.conf has none, remove the line"
        ));
    }
    let quotes_only = ParseOption {
        enabled_quote: true,
        enabled_escape: false,
        ..ParseOption::default()
    };
    let ini = Ini::load_from_str_opt(line, quotes_only).map_err(|_| MALFORMED.to_owned())?;
    let property = ini.general_section().iter().next();
    Ok(property.map(|(key, value)| (key.to_owned(), value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Fragment {
        Fragment::from_file(Path::new("/etc/fleet/fleet.conf"), text.as_bytes())
    }

    fn text<'a>(fragment: &'a Fragment, name: &str) -> &'a str {
        &fragment.values[name].text
    }

    fn problems(fragment: &Fragment) -> Vec<String> {
        fragment.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_from_any_editor_reads_the_same() {
        let read = file(
            "\u{feff}# comment\r\n  ; another\r\n\r\nmetadata=\"region=us-west,az=1\"\r\npublic_ip = '10.0.0.1'\r\netcd_servers=[\"http://a:1\", \"http://b:1\"]",
        );
        assert_eq!(problems(&read), Vec::<String>::new());
        assert_eq!(text(&read, "metadata"), "region=us-west,az=1");
        assert_eq!(text(&read, "public_ip"), "10.0.0.1");
        assert_eq!(
            text(&read, "etcd_servers"),
            r#"["http://a:1", "http://b:1"]"#
        );
    }

    #[test]
    fn a_backslash_is_an_ordinary_character() {
        assert_eq!(
            text(&file(r#"etcd_password="a\n#;b""#), "etcd_password"),
            r"a\n#;b"
        );
    }

    #[test]
    fn unknown_option_is_named_with_its_place_and_the_nearest_one() {
        let read = file("# fleet\n\netcd_server=http://a:1\ncolour=red\n");
        assert_eq!(
            problems(&read),
            [
                "unknown option `etcd_server` in /etc/fleet/fleet.conf line 3; did you mean `etcd_servers`?",
                "unknown option `colour` in /etc/fleet/fleet.conf line 4",
            ]
        );
    }

    #[test]
    fn a_bad_line_costs_only_itself() {
        let mut bytes =
            b"[fleet]\nverbosity 1\nlisten=\"/run/x\npublic_ip=10.0.0.1\nmetadata=".to_vec();
        bytes.extend(b"\xff\n");
        let read = Fragment::from_file(Path::new("f"), &bytes);
        assert_eq!(
            problems(&read),
            [
                "f line 1: `[fleet]` looks like a section; fleet.conf has none, remove the line",
                "f line 2: not of the form key=value, or a quote is not closed",
                "f line 3: not of the form key=value, or a quote is not closed",
                "f line 5: not UTF-8",
            ]
        );
        assert_eq!(text(&read, "public_ip"), "10.0.0.1");
    }

    #[test]
    fn the_last_of_two_lines_wins_and_a_note_says_so() {
        let read = file("verbosity=1\nverbosity=2\n");
        assert_eq!(text(&read, "verbosity"), "2");
        assert_eq!(
            read.notes[0].to_string(),
            "verbosity in /etc/fleet/fleet.conf line 2 replaces the one in /etc/fleet/fleet.conf line 1"
        );
    }

    #[test]
    fn foreign_variable_gives_a_note_and_no_error() {
        let variables = [
            ("FLEET_METADATA", "a=1"),
            ("FLEET_METADAT", "a=2"),
            ("FLEETCTL_ENDPOINT", "x"),
            ("PATH", "y"),
        ];
        let read = Fragment::from_environment(variables.map(|(k, v)| (k.into(), v.into())));
        assert_eq!(text(&read, "metadata"), "a=1");
        assert_eq!(read.notes.len(), 1);
        assert_eq!(
            read.notes[0].to_string(),
            "$FLEET_METADAT is not an option of fleetd and has no effect; did you mean `FLEET_METADATA`?"
        );
    }
}
