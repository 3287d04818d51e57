//! Carries HTTP to the fleetd of another machine: `ssh HOST fleetctl fd-forward SOCKET`, as fleet
//! 1.0 did.

use std::io::{self, IsTerminal as _};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Join, join};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::failure::{NOT_FOUND, SSH_FAILED};
use super::{Destination, Prompts, Ssh, shell_words};
use crate::endpoint::Endpoint;
use crate::output::talk;

/// How long an ssh whose output has ended may take to end itself.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a person at the terminal may take over what ssh asks, such as to compare a fingerprint.
const PERSON: Duration = Duration::from_secs(120);

/// What is kept of ssh's words, to choose the next step by.
const SAID_MAX: usize = 8 * 1024;

/// Why there was no answer through a tunnel. What ssh said has been passed on already.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// ssh cannot be run at all.
    #[error(
        "cannot run ssh: {0}. Install OpenSSH's client (package openssh-client), or do without --tunnel"
    )]
    NoSsh(io::Error),
    /// ssh did not get there, or lost the way back.
    #[error("the tunnel to {to} failed: {step}")]
    Failed { to: Destination, step: String },
    /// There is no fleetctl on the other side.
    #[error(
        "the tunnel to {0} has no end: there is no fleetctl in that user's PATH; install fleet there"
    )]
    NoFleetctl(Destination),
    /// fd-forward ended with an error, which it has said itself.
    #[error(
        "the tunnel to {to} does not reach fleetd there, at {endpoint}: may {} use that socket? (see SocketGroup= of fleet.socket)",
        .to.user
    )]
    NoFleetd { to: Destination, endpoint: Endpoint },
    /// No answer in time. A change may still be applied.
    #[error(
        "no answer through the tunnel to {to} within {}: --ssh-timeout and --request-timeout set how long to wait",
        humantime::format_duration(*.limit)
    )]
    TimedOut { to: Destination, limit: Duration },
}

/// The way to fleetd through another machine.
#[derive(Clone)]
pub(crate) struct Tunnel {
    pub(super) ssh: Ssh,
    pub(super) to: Destination,
}

/// The ssh of one connection; it ends with this value.
pub(crate) struct OpenTunnel {
    tunnel: Tunnel,
    process: Child,
    said: JoinHandle<String>,
}

/// HTTP's bytes: what ssh reads and writes.
pub(crate) type TunnelStream = Join<ChildStdout, ChildStdin>;

impl Tunnel {
    /// How much longer the first answer may take than one without a tunnel: ssh cannot tell us when
    /// it has connected, nor that it waits for a passphrase. That it cannot connect, it tells us in
    /// time.
    pub(crate) fn patience(&self) -> Duration {
        if io::stdin().is_terminal() {
            self.ssh.timeout + PERSON
        } else {
            self.ssh.timeout
        }
    }

    /// Starts ssh. Whether it gets there shows when the first answer comes, or does not.
    pub(crate) fn open(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(TunnelStream, OpenTunnel), TunnelError> {
        let forward = ["fleetctl", "fd-forward", &endpoint.dialled()].map(str::to_owned);
        let mut process = Command::new("ssh")
            .arg("-T")
            .args(self.ssh.direct(&self.to, Prompts::Allowed))
            .arg(shell_words(&forward))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(TunnelError::NoSsh)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        ) else {
            return Err(TunnelError::NoSsh(io::ErrorKind::BrokenPipe.into()));
        };
        let open = OpenTunnel {
            tunnel: self.clone(),
            process,
            said: tokio::spawn(pass_on(stderr)),
        };
        Ok((join(stdout, stdin), open))
    }

    /// No answer came within `limit`.
    pub(crate) fn timed_out(&self, limit: Duration) -> TunnelError {
        TunnelError::TimedOut {
            to: self.to.clone(),
            limit,
        }
    }
}

impl OpenTunnel {
    /// Why the connection broke, if it was the tunnel's fault.
    pub(crate) async fn why_broken(mut self, endpoint: &Endpoint) -> Option<TunnelError> {
        let ended = async {
            let status = self.process.wait().await.ok()?;
            Some((status, self.said.await.unwrap_or_default()))
        };
        let (status, said) = tokio::time::timeout(LAST_WORDS, ended).await.ok()??;
        let to = self.tunnel.to.clone();
        match status.code() {
            // fleetd itself has closed the connection.
            Some(0) => None,
            Some(NOT_FOUND) => Some(TunnelError::NoFleetctl(to)),
            Some(SSH_FAILED) | None => {
                let step = self.tunnel.ssh.next_step(&to, &said);
                Some(TunnelError::Failed { to, step })
            }
            Some(_) => {
                let endpoint = endpoint.clone();
                Some(TunnelError::NoFleetd { to, endpoint })
            }
        }
    }
}

/// Passes ssh's words on at once, for they may be a question or a warning, and returns the first of
/// them.
async fn pass_on(stderr: ChildStderr) -> String {
    let mut reader = BufReader::new(stderr);
    let (mut line, mut said) = (Vec::new(), String::new());
    while reader
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|n| n > 0)
    {
        let text = String::from_utf8_lossy(&line);
        talk(text.trim_end());
        if said.len() < SAID_MAX {
            said.push_str(&text);
        }
        line.clear();
    }
    said
}
