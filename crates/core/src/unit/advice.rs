//! Notes for a person about an accepted unit file.
//!
//! The file runs as it is. The notes are shown when it is submitted.

use super::{Assignment, Content, Note, Severity, UnitFile, UnitKind, UnitName, expand};

/// Returns the notes about a file, ordered by line.
pub fn advice(name: &UnitName, content: &Content, file: &UnitFile) -> Vec<Note> {
    let mut notes: Vec<Note> = file.assignments().iter().filter_map(secret).collect();
    let templates = file.assignments().iter();
    notes.extend(templates.filter_map(|assignment| template(name, assignment)));
    notes.extend(hidden_characters(content));
    notes.sort_by_key(|note| note.line);
    notes
}

fn warning(line: usize, text: String) -> Note {
    Note {
        line,
        severity: Severity::Warning,
        text,
    }
}

/// Returns a note about the template that systemd needs. It is needed by a reference to an
/// instance, and by what a socket starts for each connection.
fn template(name: &UnitName, assignment: &Assignment) -> Option<Note> {
    let Assignment {
        section,
        key,
        value,
        line,
    } = assignment;
    let template = match (section.as_str(), key.as_str()) {
        ("Unit", "OnFailure" | "OnSuccess" | "Wants" | "Requires" | "BindsTo" | "Upholds") => {
            let value = expand(value, name);
            let mut words = value.split_ascii_whitespace();
            words.find_map(|word| UnitName::parse(word).ok()?.template())?
        }
        ("Socket", "Accept") if name.kind() == UnitKind::Socket && is_true(value) => {
            UnitName::parse(&format!("{}@.service", name.stem())).ok()?
        }
        _ => return None,
    };
    Some(warning(
        *line,
        format!(
            "{key}={value} needs the template {template}, and fleet puts no template onto a machine: it must be there already"
        ),
    ))
}

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
        let content = Content::from(text);
        let file = UnitFile::parse(content.as_bytes());
        let name = UnitName::parse("web.socket").expect("valid");
        let notes = advice(&name, &content, &file);
        notes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_variable_that_looks_like_a_secret_is_noted() {
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
    fn a_template_that_is_on_no_machine_is_noted() {
        for (text, template) in [
            ("[Socket]\nAccept=yes\n", "web@.service"),
            ("[Unit]\nOnFailure=notify@%n.service\n", "notify@.service"),
            ("[Unit]\nWants=a.service b@1.service\n", "b@.service"),
        ] {
            let notes = notes(text);
            assert!(
                notes[0].contains(&format!("needs the template {template},")),
                "{notes:?}"
            );
        }
        assert_eq!(
            notes("[Socket]\nAccept=no\n[Unit]\nWants=a.service\n"),
            [""; 0]
        );
    }

    #[test]
    fn characters_that_are_not_shown_are_noted() {
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
