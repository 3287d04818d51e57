//! Data goes to stdout, talk to stderr.

use std::fmt;
use std::io::{self, Write};

/// Writes data to stdout.
///
/// A reader that has gone (`fleetctl list-units | head -1`) is no error, and must not end a command that
/// still has units to act on.
pub(crate) fn write(data: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Writes one line of data to stdout.
pub(crate) fn say(line: impl fmt::Display) -> io::Result<()> {
    write(format!("{line}\n").as_bytes())
}

/// Tells the person at the terminal something, on stderr.
pub(crate) fn talk(line: impl fmt::Display) {
    // There is nowhere left to report that stderr is closed.
    let _ = writeln!(io::stderr(), "{line}");
}
