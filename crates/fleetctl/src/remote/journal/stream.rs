//! A running journalctl, here or over ssh: its entries, and why it ended.

use std::io;
use std::process::Stdio;

use fleet_core::api::Machine;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::task::JoinHandle;

use super::Entry;
use crate::remote::failure::{NOT_FOUND, SSH_FAILED};
use crate::remote::{Destination, Prompts, Ssh, is_here};

/// The longest line that is read, so that no machine can fill this one's memory. A field of 64 KiB
/// is unusual.
const LINE_MAX: u64 = 16 * 1024 * 1024;

/// The number of bytes of stderr that are kept.
const SAID_MAX: u64 = 8 * 1024;

/// The messages of journalctl for a user who may not read all of it. Its exit code may still be 0.
const DENIED: [&str; 2] = [
    "insufficient permissions",
    "not seeing messages from other users",
];

/// The live entries of one machine. Dropping it ends journalctl.
pub(super) struct EntryStream {
    process: Child,
    stdout: BufReader<ChildStdout>,
    said: JoinHandle<String>,
    ssh: Ssh,
    /// The destination. `None` for this machine.
    to: Option<Destination>,
    too_long: bool,
}

impl EntryStream {
    /// Starts journalctl on a machine. An error is a sentence.
    pub(super) fn open(
        ssh: &Ssh,
        machine: &Machine,
        words: &[String],
        prompts: Prompts,
    ) -> Result<Self, String> {
        let to = if is_here(&machine.id) {
            None
        } else {
            Some(ssh.to(machine).map_err(|why| why.to_string())?)
        };
        let program = if to.is_some() { "ssh" } else { &words[0] };
        let not_run = |why: io::Error| format!("cannot run {program}: {why}");
        let mut process = ssh
            .command(to.as_ref(), words, prompts)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_run)?;
        let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(not_run(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self {
            process,
            stdout: BufReader::new(stdout),
            said: tokio::spawn(read_beginning(stderr)),
            ssh: ssh.clone(),
            to,
            too_long: false,
        })
    }

    /// Returns the next entry. `None` at the end, which [`Self::end`] explains.
    pub(super) async fn next(&mut self) -> Option<Entry> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.stdout).take(LINE_MAX);
            let read = limited.read_until(b'\n', &mut line).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
            if read as u64 == LINE_MAX {
                self.too_long = true;
                return None;
            }
            if let Some(entry) = Entry::parse(String::from_utf8_lossy(&line).trim_end()) {
                return Some(entry);
            }
        }
    }

    /// Waits for the end. Returns the remarks on stderr, or a sentence with the failure.
    pub(super) async fn end(mut self) -> Result<String, String> {
        if self.too_long {
            return Err(format!("an entry is longer than {LINE_MAX} bytes"));
        }
        let status = self.process.wait().await.map_err(|why| why.to_string())?;
        let said = self.said.await.unwrap_or_default();
        if DENIED.iter().any(|denied| said.contains(denied)) {
            return Err(
                "this user may not see it all there: add the user to the group systemd-journal, or use --sudo"
                    .to_owned(),
            );
        }
        if status.success() {
            return Ok(said.trim_end().to_owned());
        }
        // The last line is the reason; a banner or a warning may come before it.
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        let last = last.map_or_else(|| status.to_string(), |line| line.trim().to_owned());
        Err(match (status.code(), &self.to) {
            (Some(SSH_FAILED) | None, Some(to)) => {
                format!("{last}; {}", self.ssh.next_step(to, &said))
            }
            (Some(NOT_FOUND), _) => format!("{last}; is that a machine with systemd?"),
            _ => last,
        })
    }
}

async fn read_beginning(stderr: ChildStderr) -> String {
    let mut reader = stderr.take(SAID_MAX);
    let mut said = Vec::new();
    let _ = reader.read_to_end(&mut said).await;
    // A process that writes more must not block on an unread pipe.
    let _ = tokio::io::copy(reader.get_mut(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}
