//! Data goes to stdout, talk to stderr.

use std::borrow::Cow;
use std::fmt;
use std::future;
use std::io::{self, Write};
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use tokio::io::Interest;
use tokio::net::unix::pipe;

/// Whether anybody still reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// Writes data to stdout as it is, and tells whether there is any use in writing more.
pub(crate) fn offer(data: &[u8]) -> anyhow::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        done => done
            .map(|()| Reader::There)
            .context("cannot write to stdout"),
    }
}

/// Writes data to stdout as it is.
///
/// A reader that has gone (`fleetctl list-units | head -1`) is no error, and must not end a command
/// that still has units to act on.
pub(crate) fn write(data: &[u8]) -> anyhow::Result<()> {
    offer(data).map(|_reader| ())
}

/// Waits until the reader of stdout has gone: a pipe shows that even while there is nothing to
/// write. A file has no reader who could leave, and for one this waits for ever.
pub(crate) async fn reader_gone() {
    // Unchecked: nothing is written through it, so its kind does not matter, and stdout stays
    // blocking.
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    match stdout.and_then(pipe::Sender::from_owned_fd_unchecked) {
        Ok(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
        _ => future::pending().await,
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

/// Descriptions and problems come from other people's unit files and machines: only their line ends
/// and tabs reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ")
}

/// The same for a cell: a description may be continued over lines, or hold tabs. Hardly any has to
/// be changed.
pub(crate) fn on_one_line<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let text = text.into();
    // Looks at all of them in any case, which is faster than to look at each whether it is the
    // last.
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
    fn a_terminal_is_told_nothing_but_text() {
        assert_eq!(printable("a\tb\x1b[2J\rc\n"), "a\tb [2J c\n");
    }

    #[test]
    fn a_cell_never_breaks_its_row() {
        assert_eq!(on_one_line("two\\\n\tlines\x1b[2J"), "two\\  lines [2J");
    }
}
