//! Runs a command to its end and keeps all its output.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The result of a command that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit code. It is `128 + signal` if a signal ended it, as in shells.
    pub code: i32,
    /// Standard output. Bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, with the same replacement.
    pub stderr: String,
}

impl Output {
    /// Returns standard output if the command succeeded, else an error with all output.
    pub fn ok(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        bail!(
            "`{}` ended with {}:\n{}{}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        )
    }
}

/// Runs a command on this machine, without standard input.
///
/// # Errors
/// Only if it cannot be started. A failure of the command itself is in the [`Output`].
pub fn run(command: &[&str]) -> Result<Output> {
    let (program, arguments) = command.split_first().context("no command was given")?;
    finish(Command::new(program).args(arguments), command.join(" "))
}

/// Runs a prepared command, called `name` in messages.
pub(crate) fn finish(command: &mut Command, name: String) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{name}`"))?;
    let status = output.status;
    Ok(Output {
        command: name,
        code: status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
