//! SSH between the hosts of a lab, for fleetctl's commands on other machines. No host has it until
//! a test starts it.
//!
//! One key for all hosts, `/root/.ssh/id_ed25519`, opens the account `core`. It may read the
//! journal, use fleet's socket, and use sudo. Host keys are in `/root/.fleetctl/known_hosts`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use crate::{Host, Lab};

/// Only the key type that is used, and not the keys of the shared root file system: the key
/// identifies the host.
const NEW_HOST_KEY: &str = "rm -f /etc/ssh/ssh_host_*key* && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key";

/// The user `core` and its rights. The group of fleet's socket is what an administrator would set
/// up with `systemctl edit`.
const CORE: &str = "groupadd --system fleet \
    && useradd --create-home --shell /bin/bash --groups fleet,systemd-journal core \
    && echo 'core ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/core";

const SOCKET_GROUP: &str = "[Socket]\nSocketGroup=fleet\n";

impl Lab {
    /// Gives every host a login on every other one, and starts their SSH servers. Call it before
    /// fleet is installed, so that its socket has the group.
    pub fn start_sshd(&self) -> Result<()> {
        let first = self.host(1);
        first
            .sh("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")?
            .ok()?;
        let private = first.read_file("/root/.ssh/id_ed25519")?;
        let public = first.read_file("/root/.ssh/id_ed25519.pub")?;
        let mut known_hosts = String::new();
        for host in self.hosts() {
            host.write_file(
                "/etc/systemd/system/fleet.socket.d/group.conf",
                SOCKET_GROUP,
            )?;
            host.sh(CORE)?.ok()?;
            host.write_file("/root/.ssh/id_ed25519", &private)?;
            fs::set_permissions(
                host.path("/root/.ssh/id_ed25519"),
                Permissions::from_mode(0o600),
            )?;
            host.write_file("/home/core/.ssh/authorized_keys", &public)?;
            host.renew_host_key()?;
            known_hosts.push_str(&host.known_host()?);
            host.exec(&["systemctl", "start", "ssh.service"])?.ok()?;
        }
        self.hosts()
            .iter()
            .try_for_each(|host| host.write_file("/root/.fleetctl/known_hosts", &known_hosts))
    }
}

impl Host {
    /// Gives the host another key than the known one. The SSH server uses it from its next start
    /// on.
    pub fn renew_host_key(&self) -> Result<()> {
        self.sh(NEW_HOST_KEY)?.ok().map(drop)
    }

    /// Returns the line of a known_hosts file for this host.
    pub fn known_host(&self) -> Result<String> {
        let key = self.read_file("/etc/ssh/ssh_host_ed25519_key.pub")?;
        Ok(format!("{} {key}", self.address()))
    }
}
