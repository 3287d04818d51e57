//! Writes data to stdout, and messages to stderr.

use std::borrow::Cow;
use std::fmt;
use std::future;
use std::io::{self, Write};
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use tokio::io::Interest;
use tokio::net::unix::pipe;

/// Whether stdout is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// Writes data to stdout unchanged. Returns whether writing more has any use.
pub(crate) fn offer(data: &[u8]) -> anyhow::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        done => done
            .map(|()| Reader::There)
            .context("cannot write to stdout"),
    }
}

/// Writes data to stdout unchanged.
///
/// A closed stdout (`fleetctl list-units | head -1`) is no error. It must not end a command that
/// still has units to act on.
pub(crate) fn write(data: &[u8]) -> anyhow::Result<()> {
    offer(data).map(|_reader| ())
}

/// Waits until the reader of stdout has closed it: a pipe shows that even while there is nothing to
/// write. A file has no reader, and for it this waits for ever.
pub(crate) async fn reader_gone() {
    // Unchecked: nothing is written through it, so its kind does not matter, and stdout stays
    // blocking.
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    match stdout.and_then(pipe::Sender::from_owned_fd_unchecked) {
        Ok(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
        _ => future::pending().await,
    }
}

/// Writes text to stdout, without control characters for a terminal.
pub(crate) fn say(text: impl fmt::Display) -> anyhow::Result<()> {
    write(printable(&format!("{text}\n")).as_bytes())
}

/// Prints a message for the person at the terminal, on stderr.
pub(crate) fn talk(text: impl fmt::Display) {
    // If stderr is closed, there is no way to report it.
    let _ = io::stderr().write_all(printable(&format!("{text}\n")).as_bytes());
}

/// Returns the text without control characters, except line ends and tabs. Descriptions and
/// problems come from other people's unit files and machines.
pub(crate) fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ")
}

/// Returns the text for a cell: a description may span lines or contain tabs. Hardly any text has
/// to change.
pub(crate) fn on_one_line<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let text = text.into();
    // It always checks all bytes, which is faster than checking each for being the last.
    let plain = |all, byte| all & matches!(byte, b' '..=b'~');
    match text.bytes().fold(true, plain) {
        true => text,
        false => text.replace(char::is_control, " ").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_gets_no_control_characters() {
        assert_eq!(printable("a\tb\x1b[2J\rc\n"), "a\tb [2J c\n");
    }

    #[test]
    fn a_cell_never_breaks_its_row() {
        assert_eq!(on_one_line("two\\\n\tlines\x1b[2J"), "two\\  lines [2J");
    }
}
