//! fd-forward: standard input and output, connected to fleetd's socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::endpoint::Endpoint;

#[derive(Args)]
#[command(
    after_help = "`fleetctl --tunnel HOST` runs it on HOST by ssh. An SSH key can be restricted to it.

Example, a line of authorized_keys:
  restrict,command=\"fleetctl fd-forward /run/fleet.sock\" ssh-ed25519 AAAA..."
)]
pub(crate) struct FdForward {
    /// A socket's path, unix:///PATH, or HOST:PORT
    #[arg(value_name = "ENDPOINT")]
    endpoints: Vec<String>,
}

impl FdForward {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let [typed] = &self.endpoints[..] else {
            bail!("Provide a single argument");
        };
        let failed = || format!("Failed dialing remote address: {typed}");
        match dialled(typed).with_context(failed)? {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).with_context(failed)?;
                let (writer, closer) = (stream.try_clone()?, stream.try_clone()?);
                copy(stream, writer, move || closer.shutdown(Shutdown::Write))
            }
            // The bytes pass unchanged. If TLS is needed, the program at standard input and output
            // speaks it.
            Endpoint::Tcp(address) | Endpoint::Tls(address) => {
                let stream = TcpStream::connect(address).with_context(failed)?;
                let (writer, closer) = (stream.try_clone()?, stream.try_clone()?);
                copy(stream, writer, move || closer.shutdown(Shutdown::Write))
            }
        }
    }
}

/// Reads the endpoint that a person, fleetctl or fleet 1.0 gives: a path, an endpoint or an
/// address.
fn dialled(typed: &str) -> anyhow::Result<Endpoint> {
    let endpoint = match typed.split_once("://") {
        None if typed.starts_with('/') => Endpoint::Unix(typed.into()),
        None => Endpoint::parse(&format!("http://{typed}"))?,
        Some(("tcp", address)) => Endpoint::parse(&format!("http://{address}"))?,
        Some(_) => Endpoint::parse(typed)?,
    };
    Ok(endpoint)
}

/// Copies both ways until fleetd has closed its side. The end of standard input is passed on but
/// ends nothing: the response may still come.
fn copy(
    mut reader: impl Read,
    mut writer: impl Write + Send + 'static,
    close: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    // Unbuffered: a request or a response need not end with a line.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // A thread of its own ends with the process, even while it waits for input.
    thread::spawn(move || {
        // A failure on the way in shows on the way back.
        let _ = pump(&mut stdin, &mut writer);
        let _ = close();
    });
    match pump(&mut reader, &mut stdout) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied.context("lost the connection"),
    }
}

/// Copies to the end. It avoids `io::copy`, which uses splice(2): the kernel keeps the pipe locked
/// while it waits for the socket. The reader of the pipe then often could not read what the pipe
/// already held.
fn pump(reader: &mut impl Read, writer: &mut impl Write) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => writer.write_all(&chunk[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_by_its_path_its_endpoint_or_its_address() {
        for (typed, meant) in [
            ("/var/run/fleet.sock", "unix:///var/run/fleet.sock"),
            ("unix:///var/run/fleet.sock", "unix:///var/run/fleet.sock"),
            ("10.99.1.1:8080", "http://10.99.1.1:8080"),
            ("tcp://[::1]:8080", "http://[::1]:8080"),
            ("http://n1:8080", "http://n1:8080"),
        ] {
            assert_eq!(dialled(typed).expect(typed).to_string(), meant);
        }
        assert!(dialled("ftp://n1").is_err());
    }
}
