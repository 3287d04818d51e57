//! The global flags about ssh, and their environment variables, as in fleet 1.0.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use anyhow::Context as _;

use super::host_keys::HostKeys;
use super::ssh::Ssh;
use super::{Destination, Tunnel};
use crate::go_flags::seconds;

/// The options for reaching other machines.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Remote {
    /// Ask the fleetd of this machine, through ssh: HOST or HOST:PORT
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_TUNNEL",
        hide_env = true,
        value_name = "HOST"
    )]
    tunnel: Option<String>,
    /// The user to log in as on other machines
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_SSH_USERNAME",
        hide_env = true,
        value_name = "USER",
        default_value = "core"
    )]
    ssh_username: String,
    /// How long connecting by ssh may take, in seconds
    #[arg(long, global = true, env = "FLEETCTL_SSH_TIMEOUT", hide_env = true, value_name = "SECONDS",
          default_value = "10", value_parser = seconds)]
    ssh_timeout: Duration,
    /// The file with the host keys of other machines
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_KNOWN_HOSTS_FILE",
        hide_env = true,
        value_name = "FILE",
        default_value = "~/.fleetctl/known_hosts"
    )]
    known_hosts_file: PathBuf,
    /// Check host keys: true refuses unknown ones, ask asks and adds them, false accepts all
    #[arg(long, global = true, env = "FLEETCTL_STRICT_HOST_KEY_CHECKING", hide_env = true, value_name = "true|ask|false",
          default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    strict_host_key_checking: HostKeys,
}

impl Remote {
    /// Returns the ssh that the flags configure. Nothing is connected yet.
    pub(crate) fn ssh(&self) -> anyhow::Result<Ssh> {
        let tunnel = self.tunnel.as_deref().filter(|text| !text.is_empty());
        let tunnel = tunnel.map(|text| Destination::parse(text, &self.ssh_username));
        let ssh = Ssh {
            user: self.ssh_username.clone(),
            timeout: self.ssh_timeout,
            known_hosts: at_home(&self.known_hosts_file),
            host_keys: self.strict_host_key_checking,
            through: tunnel.transpose()?,
            port: None,
        };
        if ssh.host_keys == HostKeys::Ask {
            // ssh adds to the file, but does not create its folder.
            let folder = ssh.known_hosts.parent().unwrap_or(Path::new("/"));
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot make {} for host keys", folder.display()))?;
        }
        Ok(ssh)
    }

    /// Returns the tunnel to fleetd. `None` for a direct connection.
    pub(crate) fn tunnel(&self) -> anyhow::Result<Option<Tunnel>> {
        let ssh = self.ssh()?;
        Ok(ssh.through.clone().map(|to| Tunnel { ssh, to }))
    }
}

/// Replaces `~/` with the home directory. A shell does not replace it in the environment or after
/// `=`.
fn at_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}
