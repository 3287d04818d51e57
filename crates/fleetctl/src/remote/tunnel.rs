//! Carries HTTP to the fleetd of another machine with `ssh HOST fleetctl fd-forward SOCKET`, as in
//! fleet 1.0.

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

/// The time that ssh may take to end after its output has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The time that a person may take to answer ssh, for example to compare a fingerprint.
const PERSON: Duration = Duration::from_secs(120);

/// The number of bytes of ssh's messages that are kept to choose the next step.
const SAID_MAX: usize = 8 * 1024;

/// The reason why there was no response through a tunnel. ssh's messages were already printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// ssh cannot be started.
    #[error(
        "cannot run ssh: {0}. Install OpenSSH's client (package openssh-client), or do without --tunnel"
    )]
    NoSsh(io::Error),
    /// ssh could not connect, or lost the connection.
    #[error("the tunnel to {to} failed: {step}")]
    Failed { to: Destination, step: String },
    /// The other machine has no fleetctl.
    #[error(
        "the tunnel to {0} has no end: there is no fleetctl in that user's PATH; install fleet there"
    )]
    NoFleetctl(Destination),
    /// fd-forward ended with an error, which it has printed itself.
    #[error(
        "the tunnel to {to} does not reach fleetd there, at {endpoint}: may {} use that socket? (see SocketGroup= of fleet.socket)",
        .to.user
    )]
    NoFleetd { to: Destination, endpoint: Endpoint },
    /// The response did not come in time. A change may still be applied.
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

/// The ssh of one connection. It ends with this value.
pub(crate) struct OpenTunnel {
    tunnel: Tunnel,
    process: Child,
    said: JoinHandle<String>,
}

/// The HTTP stream: ssh's standard input and output.
pub(crate) type TunnelStream = Join<ChildStdout, ChildStdin>;

impl Tunnel {
    /// Returns how much longer the first response may take than without a tunnel. ssh cannot report
    /// that it has connected, or that it waits for a passphrase. It does report in time that it
    /// cannot connect.
    pub(crate) fn patience(&self) -> Duration {
        if io::stdin().is_terminal() {
            self.ssh.timeout + PERSON
        } else {
            self.ssh.timeout
        }
    }

    /// Starts ssh. The first response shows whether it connects.
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

    /// Returns the error for a response that did not come within `limit`.
    pub(crate) fn timed_out(&self, limit: Duration) -> TunnelError {
        TunnelError::TimedOut {
            to: self.to.clone(),
            limit,
        }
    }
}

impl OpenTunnel {
    /// Returns why the connection broke. `None` if the tunnel was not the cause.
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

/// Prints ssh's messages at once, because they may be questions or warnings. Returns the first of
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
