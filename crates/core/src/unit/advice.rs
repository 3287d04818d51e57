//! Notes for a person about an accepted unit file.
//!
//! The file runs as it is. The notes are shown when it is submitted.

use std::collections::BTreeSet;

use super::{Assignment, Content, Note, Severity, UnitFile, UnitKind, UnitName, expand};

/// Returns the notes about a file, ordered by line. `is_there` returns whether
/// fleet has put a unit, or a template, of that name on machines.
pub fn advice(
    name: &UnitName,
    content: &Content,
    file: &UnitFile,
    is_there: impl Fn(&UnitName) -> bool,
) -> Vec<Note> {
    let mut notes: Vec<Note> = file.assignments().iter().filter_map(secret).collect();
    let needs = needs(name, file);
    notes.extend(needs.iter().filter_map(|need| need.missing(&is_there)));
    notes.extend(hidden_characters(content));
    notes.sort_by_key(|note| note.line);
    notes
}

/// Returns the units and templates whose presence decides about the notes on a file.
pub fn needed(name: &UnitName, file: &UnitFile) -> BTreeSet<UnitName> {
    let needs = needs(name, file).into_iter();
    needs
        .flat_map(|need| need.instance.into_iter().chain([need.template]))
        .collect()
}

fn warning(line: usize, text: String) -> Note {
    Note {
        line,
        severity: Severity::Warning,
        text,
    }
}

/// A reference to an instance, or to what a socket starts for each connection: systemd makes it
/// from a template.
struct Need<'a> {
    assignment: &'a Assignment,
    /// `None` if each connection has its own.
    instance: Option<UnitName>,
    template: UnitName,
}

impl Need<'_> {
    fn missing(&self, is_there: impl Fn(&UnitName) -> bool) -> Option<Note> {
        let Self {
            assignment,
            instance,
            template,
        } = self;
        if instance.as_ref().is_some_and(&is_there) || is_there(template) {
            return None;
        }
        let Assignment {
            key, value, line, ..
        } = assignment;
        let text = format!(
            "{key}={value} needs the template {template}, which fleet has put on no machine: unless the machines \
             have it, `fleetctl load {template}` puts it there"
        );
        Some(warning(*line, text))
    }
}

fn needs<'a>(name: &UnitName, file: &'a UnitFile) -> Vec<Need<'a>> {
    let all = file.assignments().iter().flat_map(|assignment| {
        let of_instance = |instance: UnitName| {
            Some(Need {
                assignment,
                template: instance.template()?,
                instance: Some(instance),
            })
        };
        match (assignment.section.as_str(), assignment.key.as_str()) {
            ("Unit", key) if REFERENCES.contains(&key) => {
                let value = expand(&assignment.value, name);
                let words = value.split_ascii_whitespace();
                let instances = words.filter_map(|word| UnitName::parse(word).ok());
                instances.filter_map(of_instance).collect()
            }
            ("Timer" | "Path", "Unit") | ("Socket", "Service") => {
                let unit = UnitName::parse(&expand(&assignment.value, name)).ok();
                unit.and_then(of_instance).into_iter().collect()
            }
            ("Socket", "Accept")
                if name.kind() == UnitKind::Socket && is_true(&assignment.value) =>
            {
                let template = UnitName::parse(&format!("{}@.service", name.prefix())).ok();
                let need = template.map(|template| Need {
                    assignment,
                    instance: None,
                    template,
                });
                need.into_iter().collect()
            }
            _ => Vec::new(),
        }
    });
    all.collect()
}

/// Options of `[Unit]` that have systemd start other units.
const REFERENCES: [&str; 6] = [
    "OnFailure",
    "OnSuccess",
    "Wants",
    "Requires",
    "BindsTo",
    "Upholds",
];

/// Reads a boolean as systemd does.
pub(super) fn is_true(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["1", "yes", "y", "true", "t", "on"].contains(&&*value)
}

/// Returns a note about a variable that looks like a secret. Every reader of the registry and every
/// client of systemd sees its value.
fn secret(assignment: &Assignment) -> Option<Note> {
    if assignment.key != "Environment" {
        return None;
    }
    let words = assignment.value.split_ascii_whitespace();
    let variable = words
        .filter_map(|word| word.trim_start_matches(['"', '\'']).split_once('='))
        .find(|(name, value)| is_secret(name) && !value.trim_matches(['"', '\'']).is_empty())?
        .0;
    Some(warning(
        assignment.line,
        format!(
            "Environment={variable} looks like a secret, and every reader of the registry and any local user can see it; \
             use LoadCredential= or EnvironmentFile="
        ),
    ))
}

fn is_secret(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    let key = name
        .split('_')
        .any(|word| word == "KEY" || word == "APIKEY");
    key || ["PASS", "TOKEN", "SECRET"]
        .iter()
        .any(|word| name.contains(word))
}

/// Returns notes about characters that a terminal hides or obeys. They make the file look other
/// than it runs.
fn hidden_characters(content: &Content) -> Vec<Note> {
    let text = content.to_text();
    let lines = text.trim_start_matches('\u{feff}').split('\n');
    lines
        .zip(1..)
        .filter_map(|(line, number)| {
            let hidden = line.chars().find(|c| is_hidden(*c))?;
            let code = u32::from(hidden);
            let text = format!("the line has the character U+{code:04X}, which is not shown: it may read other than it runs");
            Some(warning(number, text))
        })
        .collect()
}

/// Returns whether a character is a control character, or can hide or reorder text.
fn is_hidden(c: char) -> bool {
    let format = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    format || c.is_control() && !['\t', '\r'].contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(text: &str) -> Vec<String> {
        notes_beside(&[], text)
    }

    /// `there`: what fleet has put on machines.
    fn notes_beside(there: &[&str], text: &str) -> Vec<String> {
        let content = Content::from(text);
        let file = UnitFile::parse(content.as_bytes());
        let name = UnitName::parse("web.socket").expect("valid");
        let notes = advice(&name, &content, &file, |name| {
            there.contains(&name.as_str())
        });
        notes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variable_that_looks_like_a_secret_is_noted() {
        for variable in [
            "DB_PASSWORD=x",
            "\"API_TOKEN=a b\"",
            "A=1 client_secret=x",
            "AWS_ACCESS_KEY=x",
        ] {
            let notes = notes(&format!("[Service]\nEnvironment={variable}\n"));
            assert!(
                notes[0].contains("looks like a secret"),
                "{variable}: {notes:?}"
            );
            assert!(notes[0].ends_with("(line 2)"), "{notes:?}");
        }
        for harmless in ["KEYBOARD=us", "MONKEY=1", "PASSWORD=", "A=SECRET"] {
            assert_eq!(
                notes(&format!("[Service]\nEnvironment={harmless}\n")),
                [""; 0],
                "{harmless}"
            );
        }
    }

    #[test]
    fn template_on_no_machine_is_noted() {
        for (text, template, also) in [
            ("[Socket]\nAccept=yes\n", "web@.service", "web@.service"),
            (
                "[Unit]\nOnFailure=notify@%n.service\n",
                "notify@.service",
                "notify@web.socket.service",
            ),
            (
                "[Unit]\nWants=a.service b@1.service\n",
                "b@.service",
                "b@1.service",
            ),
            (
                "[Socket]\nService=c@1.service\n",
                "c@.service",
                "c@1.service",
            ),
        ] {
            let found = notes(text);
            assert!(
                found[0].contains(&format!("needs the template {template}, which")),
                "{found:?}"
            );
            for there in [template, also] {
                assert_eq!(notes_beside(&[there], text), [""; 0]);
            }
        }
        let two = notes("[Unit]\nWants=a@1.service b@1.service\n");
        assert_eq!(two.len(), 2, "{two:?}");
        assert_eq!(
            notes("[Socket]\nAccept=no\n[Unit]\nWants=a.service\n"),
            [""; 0]
        );
    }

    #[test]
    fn hidden_characters_are_noted() {
        for hidden in [
            '\u{7f}', '\u{9b}', '\u{1b}', '\u{202e}', '\u{200b}', '\u{2066}',
        ] {
            let notes = notes(&format!("[Service]\r\n# a{hidden}b\nExecStart=/bin/x\t1\n"));
            let code = format!("U+{:04X}", u32::from(hidden));
            assert_eq!(notes.len(), 1, "{code}");
            assert!(
                notes[0].contains(&code) && notes[0].ends_with("(line 2)"),
                "{notes:?}"
            );
        }
        assert_eq!(
            notes("\u{feff}[Unit]\nDescription=Gr\u{fc}\u{df}e\n"),
            [""; 0]
        );
    }
}
