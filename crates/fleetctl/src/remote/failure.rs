//! The next step when ssh fails. ssh itself has printed the cause.

use super::{Destination, Ssh};

/// ssh's own exit code. All others are the remote command's.
pub(crate) const SSH_FAILED: i32 = 255;

/// A shell's exit code for a program that it cannot find.
pub(crate) const NOT_FOUND: i32 = 127;

impl Ssh {
    /// Returns the next step after ssh ended with [`SSH_FAILED`] and these words; empty if the user
    /// has seen it.
    pub(crate) fn next_step(&self, to: &Destination, said: &str) -> String {
        let file = self.known_hosts.display();
        if said.contains("IDENTIFICATION HAS CHANGED") {
            return format!(
                "the host key is not the one in {file}. If the machine was reinstalled, remove the old key with the \
                 `ssh-keygen -R` that ssh names, and add the new one with --strict-host-key-checking=ask"
            );
        }
        if said.contains("Host key verification failed") || said.contains("host key is known for") {
            return format!(
                "its host key is not in {file}: --strict-host-key-checking=ask, at a terminal, shows it and adds it"
            );
        }
        if said.contains("Permission denied") {
            return format!(
                "{} does not let you in with the keys that ssh has (`ssh-add -l` lists an agent's): --ssh-username names another user",
                to.host
            );
        }
        if said.is_empty() {
            return format!(
                "host keys are taken from {file} (--strict-host-key-checking=ask adds one), and the user is {} (--ssh-username)",
                to.user
            );
        }
        format!(
            "does an SSH server run on {}, and may you reach it from here?",
            to.host
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::host_keys::HostKeys;
    use std::time::Duration;

    #[test]
    fn each_failure_has_a_next_step_of_its_own() {
        let ssh = Ssh {
            user: "core".into(),
            timeout: Duration::from_secs(10),
            known_hosts: "/root/.fleetctl/known_hosts".into(),
            host_keys: HostKeys::Strict,
            through: None,
            port: None,
        };
        let to = Destination::parse("n2", "core").expect("a host");
        for (said, step) in [
            (
                "No ED25519 host key is known for n2 and you have requested strict checking.\nHost key verification failed.",
                "its host key is not in /root/.fleetctl/known_hosts: --strict-host-key-checking=ask",
            ),
            (
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
                "the host key is not the one in /root/.fleetctl/known_hosts. If the machine was reinstalled",
            ),
            (
                "core@n2: Permission denied (publickey).",
                "n2 does not let you in",
            ),
            (
                "ssh: connect to host n2 port 22: Connection refused",
                "does an SSH server run on n2",
            ),
            ("", "host keys are taken from /root/.fleetctl/known_hosts"),
        ] {
            let told = ssh.next_step(&to, said);
            assert!(told.starts_with(step), "{said}: {told}");
        }
    }
}
