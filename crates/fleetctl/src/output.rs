//! Data goes to stdout, talk to stderr.

use std::fmt;
use std::io::{self, Write};

use anyhow::Context as _;

/// Writes data to stdout as it is.
///
/// A reader that has gone (`fleetctl list-units | head -1`) is no error, and must not end a command that
/// still has units to act on.
pub(crate) fn write(data: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to stdout"),
    }
}

/// Writes text to stdout, without what a terminal would obey.
pub(crate) fn say(text: impl fmt::Display) -> anyhow::Result<()> {
    write(printable(&format!("{text}\n")).as_bytes())
}

/// Tells the person at the terminal something, on stderr.
pub(crate) fn talk(text: impl fmt::Display) {
    // There is nowhere left to report that stderr is closed.
    let _ = io::stderr().write_all(printable(&format!("{text}\n")).as_bytes());
}

/// Descriptions and problems come from other people's unit files and machines: only their line ends and tabs
/// reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_but_text() {
        assert_eq!(printable("a\tb\x1b[2J\rc\n"), "a\tb [2J c\n");
    }
}
