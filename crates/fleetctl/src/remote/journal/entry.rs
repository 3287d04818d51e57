//! An entry of a journal: read from journalctl's JSON, and written as lines.

use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use serde_json::Value;

/// The fields that lines are made of.
pub(super) const FIELDS: &[&str] = &[
    "MESSAGE",
    "SYSLOG_IDENTIFIER",
    "_COMM",
    "_PID",
    "SYSLOG_PID",
];

/// The form in which an entry is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// machine, time, program and message
    Short,
    /// the message alone
    Cat,
    /// all fields, one JSON object a line, as journalctl prints it
    Json,
}

/// One entry of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The time in microseconds since 1970, by that machine's clock.
    pub(crate) time: u64,
    /// The position in its machine's journal.
    pub(crate) cursor: String,
    /// The message, with invalid UTF-8 replaced.
    pub(crate) message: String,
    /// The program, such as `sleep[123]`.
    pub(super) program: String,
    /// The JSON as journalctl printed it.
    pub(super) json: String,
}

impl Entry {
    /// Reads a line of `journalctl --output=json`. `None` for other lines, such as the greeting of
    /// a login shell.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let field = |name| value.get(name).map(text);
        let program = field("SYSLOG_IDENTIFIER").or_else(|| field("_COMM"));
        let program = program.unwrap_or_else(|| "unknown".to_owned());
        let pid = field("_PID").or_else(|| field("SYSLOG_PID"));
        Some(Self {
            time: field("__REALTIME_TIMESTAMP")?.parse().ok()?,
            cursor: field("__CURSOR").unwrap_or_default(),
            message: field("MESSAGE").unwrap_or_default(),
            program: pid.map_or(program.clone(), |pid| format!("{program}[{pid}]")),
            json: line.to_owned(),
        })
    }

    /// Returns the entry as complete lines. `machine` precedes each, unless it is empty.
    pub(crate) fn lines(&self, machine: &str, style: Style) -> String {
        match style {
            Style::Json => format!("{}\n", self.json),
            Style::Cat => format!("{}\n", self.message),
            Style::Short => {
                let time = SystemTime::UNIX_EPOCH + Duration::from_micros(self.time);
                let time = humantime::format_rfc3339_millis(time);
                let mut before = format!("{time} {}: ", self.program);
                let mut lines = String::new();
                let gap = if machine.is_empty() { "" } else { " " };
                for line in self.message.trim_end_matches('\n').split('\n') {
                    lines.push_str(&format!("{machine}{gap}{before}{line}\n"));
                    before = " ".repeat(before.chars().count());
                }
                lines
            }
        }
    }
}

/// Returns a field's text. journalctl writes invalid UTF-8 as a list of bytes, and a repeated field
/// as a list.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let byte = |item: &Value| u8::try_from(item.as_u64()?).ok();
            match items.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                None => items.iter().map(text).collect::<Vec<_>>().join("\n"),
            }
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str) -> Entry {
        let line = format!(
            r#"{{"__REALTIME_TIMESTAMP":"1795329641123456","__CURSOR":"s=1","_PID":"42","SYSLOG_IDENTIFIER":"hello","MESSAGE":{message}}}"#
        );
        Entry::parse(&line).expect("an entry")
    }

    #[test]
    fn line_has_machine_time_program_and_message() {
        insta::assert_snapshot!(entry(r#""Hello""#).lines("190c6f8f.../10.99.1.1", Style::Short), @"190c6f8f.../10.99.1.1 2026-11-22T06:40:41.123Z hello[42]: Hello");
        assert_eq!(entry(r#""Hello""#).lines("n1", Style::Cat), "Hello\n");
        let json = entry(r#""Hello""#).lines("n1", Style::Json);
        assert!(json.starts_with(r#"{"__REALTIME_TIMESTAMP""#) && json.ends_with("}\n"));
    }

    #[test]
    fn each_line_of_a_message_has_its_machine() {
        insta::assert_snapshot!(entry(r#""panic\n  at main\n""#).lines("n1", Style::Short), @r"
        n1 2026-11-22T06:40:41.123Z hello[42]: panic
        n1                                       at main
        ");
    }

    #[test]
    fn message_with_invalid_utf8_is_shown_in_part() {
        assert_eq!(entry("[72,255,105]").message, "H\u{fffd}i");
        assert_eq!(entry(r#"["one",[116,119,111]]"#).message, "one\ntwo");
        assert_eq!(entry("null").message, "");
    }

    #[test]
    fn other_lines_are_skipped() {
        for line in ["-- No entries --", "Welcome!", "{}", "", "{\"MESSAGE\":"] {
            assert_eq!(Entry::parse(line), None, "{line}");
        }
    }
}
