//! The connection to fleetd: its global options, and the client that they configure.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::FromArgMatches as _;

use crate::client::{Client, TlsError, TlsFiles};
use crate::endpoint::Endpoint;
use crate::go_flags::seconds;
use crate::output::talk;
use crate::remote::Remote;

/// The options for reaching fleetd.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Connect {
    /// The address of fleetd: unix:///PATH, https://HOST:PORT, or http://HOST:PORT if it offers
    /// plain TCP
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_ENDPOINT",
        hide_env = true,
        value_name = "URL",
        default_value = "unix:///var/run/fleet.sock"
    )]
    endpoint: String,
    /// The authority that signs fleetd's certificate, for https://
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_CA_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    ca_file: Option<String>,
    /// Your certificate, for https://
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_CERT_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    cert_file: Option<String>,
    /// The key of your certificate, for https://
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_KEY_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    key_file: Option<String>,
    /// How long one request may take, in seconds
    #[arg(long, global = true, env = "FLEETCTL_REQUEST_TIMEOUT", hide_env = true, value_name = "SECONDS",
          default_value = "3", value_parser = seconds)]
    request_timeout: Duration,
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_DRIVER",
        default_value = "API",
        hide = true
    )]
    driver: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

impl Connect {
    /// Reads the options of an unfinished command line and the environment. `None` if completion
    /// must not use them: a tunnel starts ssh, which may ask questions.
    pub(crate) fn of_unfinished(command: clap::Command, words: &[OsString]) -> Option<Self> {
        let matches = command
            .ignore_errors(true)
            .try_get_matches_from(words)
            .ok()?;
        let tunnel = matches.get_raw("tunnel").into_iter().flatten();
        if tunnel.into_iter().any(|host| !host.is_empty()) {
            return None;
        }
        Self::from_arg_matches(&matches).ok()
    }

    /// Returns the client that the flags configure. Nothing is sent yet.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let unable = "Unable to initialize client";
        self.supported().context(unable)?;
        let mut endpoints = self.endpoint.split(',');
        let first = endpoints.next().unwrap_or_default();
        if endpoints.next().is_some() {
            talk(format_args!(
                "WARNING: multiple endpoints provided but only the first ({first}) is used"
            ));
        }
        let endpoint = Endpoint::parse(first).context(unable)?;
        let tunnel = self.remote.tunnel().context(unable)?;
        let tls = match endpoint {
            Endpoint::Tls(_) => Some(self.tls_files(first).context(unable)?),
            // Scripts for fleet 1.0 may give the files with any endpoint.
            _ => None,
        };
        Ok(Client::new(endpoint, tunnel, tls, self.request_timeout))
    }

    fn tls_files(&self, endpoint: &str) -> Result<TlsFiles, TlsError> {
        let [ca, cert, key] = [&self.ca_file, &self.cert_file, &self.key_file]
            .map(|file| file.as_deref().filter(|file| !file.is_empty()));
        TlsFiles::of(endpoint, ca, cert, key)
    }

    /// Refuses options of fleet 1.0 that fleetctl does not support (yet), rather than doing
    /// something else.
    fn supported(&self) -> anyhow::Result<()> {
        match self.driver.to_lowercase().as_str() {
            "api" => {}
            "etcd" => bail!(
                "driver \"etcd\" is gone: fleetctl talks to fleetd only; leave --driver out and point --endpoint to a fleetd"
            ),
            _ => bail!("unrecognized driver \"{}\"", self.driver),
        }
        Ok(())
    }
}
