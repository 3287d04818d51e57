//! The command lines of ssh, as pure functions of the user's options.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_core::api::Machine;
use tokio::process::Command;

use super::Destination;
use super::host_keys::HostKeys;

/// The options of ssh.
#[derive(Clone, Debug)]
pub(crate) struct Ssh {
    /// The user to log in as.
    pub(crate) user: String,
    /// The longest time that connecting may take.
    pub(crate) timeout: Duration,
    pub(crate) known_hosts: PathBuf,
    pub(crate) host_keys: HostKeys,
    /// The machine of `--tunnel`, through which all others are reached.
    pub(crate) through: Option<Destination>,
    /// The port of the SSH servers of the cluster's machines. `None` leaves it to the user's ssh
    /// configuration.
    pub(crate) port: Option<u16>,
}

/// The error for a machine that ssh cannot reach.
#[derive(Debug, thiserror::Error)]
#[error("\"{address}\" is no address; set public_ip in the fleet.conf of machine {id}")]
pub(crate) struct NoAddress {
    id: String,
    address: String,
}

/// Whether ssh may ask for a passphrase or a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prompts {
    Allowed,
    /// ssh never asks: several run side by side, and a person could not tell which one asks.
    Never,
}

impl Ssh {
    /// Returns the destination of a machine of the cluster. The address is the machine's own claim,
    /// and with a tunnel a shell here reads it. So only a possible address or name is accepted.
    pub(crate) fn to(&self, machine: &Machine) -> Result<Destination, NoAddress> {
        let address = &machine.primary_ip;
        let usual = |c: char| c.is_ascii_alphanumeric() || ".:_%-".contains(c);
        if address.is_empty() || address.starts_with('-') || !address.chars().all(usual) {
            return Err(NoAddress {
                id: machine.id.clone(),
                address: address.clone(),
            });
        }
        Ok(Destination {
            user: self.user.clone(),
            host: address.clone(),
            port: self.port,
        })
    }

    /// Returns the options for machines whose SSH servers listen on another port.
    pub(crate) fn on_port(&self, port: Option<u16>) -> Self {
        Self {
            port,
            ..self.clone()
        }
    }

    /// Returns the arguments for the tunnel's machine itself, up to the host.
    pub(crate) fn direct(&self, to: &Destination, prompts: Prompts) -> Vec<String> {
        let mut arguments = self.options(prompts);
        arguments.extend(place(to));
        arguments
    }

    /// Returns the arguments for a machine of the cluster, up to its address. `more` are options.
    pub(crate) fn beyond(&self, to: &Destination, prompts: Prompts, more: &[&str]) -> Vec<String> {
        let mut arguments = self.options(prompts);
        if let Some(through) = &self.through {
            // Not -J: the ssh that it starts would use another known_hosts file.
            let mut hop = vec!["ssh".to_owned()];
            hop.extend(self.options(prompts));
            let (hop, place) = (shell_words(&hop), shell_words(&place(through)));
            let [hop, place] = [hop, place].map(|words| words.replace('%', "%%"));
            let command = format!("ProxyCommand={hop} -W '[%h]:%p' {place}");
            arguments.extend(["-o".to_owned(), command]);
        }
        arguments.extend(more.iter().map(|&option| option.to_owned()));
        arguments.extend(place(to));
        arguments
    }

    /// Returns the command that runs these words on a machine, or on this one. The words are passed
    /// unchanged.
    pub(crate) fn command(
        &self,
        to: Option<&Destination>,
        words: &[String],
        prompts: Prompts,
    ) -> Command {
        let Some(to) = to else {
            let mut here = Command::new(&words[0]);
            here.args(&words[1..]);
            return here;
        };
        // If a machine dies while its journal is followed, ssh would otherwise be silent for hours.
        let alive = ["-T", "-o", "ServerAliveInterval=15"];
        let mut there = Command::new("ssh");
        there.args(self.beyond(to, prompts, &alive));
        there.arg(shell_words(words));
        there
    }

    fn options(&self, prompts: Prompts) -> Vec<String> {
        let (checking, file) = match self.host_keys {
            HostKeys::Strict => ("yes", config_path(&self.known_hosts)),
            HostKeys::Ask => ("ask", config_path(&self.known_hosts)),
            HostKeys::Unchecked => ("no", "/dev/null".to_owned()),
        };
        // ssh counts in whole seconds.
        let seconds = self.timeout.as_secs_f64().ceil();
        let mut options = vec![
            format!("ConnectTimeout={seconds}"),
            format!("StrictHostKeyChecking={checking}"),
            format!("UserKnownHostsFile={file}"),
        ];
        if self.host_keys == HostKeys::Unchecked {
            // ssh would print that it has added a key, although it keeps none.
            options.push("LogLevel=ERROR".to_owned());
        }
        if prompts == Prompts::Never {
            options.push("BatchMode=yes".to_owned());
        }
        let with_flag = |option| ["-o".to_owned(), option];
        options.into_iter().flat_map(with_flag).collect()
    }
}

/// Returns the end of a command line: port, user and host.
fn place(to: &Destination) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(port) = to.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    let rest = ["-l", &to.user, "--", &to.host];
    words.extend(rest.map(str::to_owned));
    words
}

/// Returns a path as the value of an ssh option, where blanks separate files and `%` begins a
/// token.
fn config_path(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('%', "%%"))
}

/// Joins words so that a shell reads the same words again.
pub(crate) fn shell_words(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    let quoted = |word: &String| match word.as_str() {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(through: Option<&str>) -> Ssh {
        Ssh {
            user: "core".into(),
            timeout: Duration::from_millis(2_500),
            known_hosts: "/home/ada/my keys/100%".into(),
            host_keys: HostKeys::Strict,
            through: through.map(|text| Destination::parse(text, "core").expect("a host")),
            port: None,
        }
    }

    fn n2() -> Destination {
        Destination::parse("10.99.1.2", "core").expect("a host")
    }

    #[test]
    fn host_keys_come_from_the_file_that_was_named() {
        insta::assert_snapshot!(shell_words(&ssh(None).beyond(&n2(), Prompts::Allowed, &["-A"])), @r#"-o ConnectTimeout=3 -o StrictHostKeyChecking=yes -o 'UserKnownHostsFile="/home/ada/my keys/100%%"' -A -l core -- 10.99.1.2"#);
    }

    #[test]
    fn unchecked_host_keys_are_not_remembered() {
        let unchecked = Ssh {
            host_keys: HostKeys::Unchecked,
            ..ssh(None)
        };
        insta::assert_snapshot!(shell_words(&unchecked.direct(&n2(), Prompts::Never)), @"-o ConnectTimeout=3 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -l core -- 10.99.1.2");
    }

    #[test]
    fn the_hop_of_a_tunnel_is_as_strict_as_its_end() {
        let arguments = ssh(Some("gate:2222")).beyond(&n2(), Prompts::Allowed, &[]);
        let hop = arguments
            .iter()
            .find(|argument| argument.starts_with("ProxyCommand="))
            .expect("a hop");
        insta::assert_snapshot!(hop, @r#"ProxyCommand=ssh -o ConnectTimeout=3 -o StrictHostKeyChecking=yes -o 'UserKnownHostsFile="/home/ada/my keys/100%%%%"' -W '[%h]:%p' -p 2222 -l core -- gate"#);
    }

    #[test]
    fn a_machine_cannot_claim_an_address_that_a_shell_would_obey() {
        for (address, taken) in [
            ("10.99.1.2", true),
            ("fe80::1%eth0", true),
            ("node-2.example.net", true),
            ("", false),
            ("-J", false),
            ("$(touch x)", false),
            ("a'b", false),
        ] {
            let machine = Machine {
                primary_ip: address.into(),
                ..Machine::default()
            };
            assert_eq!(ssh(None).to(&machine).is_ok(), taken, "{address}");
        }
    }

    #[test]
    fn a_shell_reads_the_same_words_again() {
        let words = ["a b", "", "it's", "$x;y", "-n", "10"].map(str::to_owned);
        let echo = format!("printf '<%s>' {}", shell_words(&words));
        let output = std::process::Command::new("sh")
            .args(["-c", &echo])
            .output()
            .expect("sh runs");
        let echoed = String::from_utf8(output.stdout).expect("text");
        assert_eq!(echoed, "<a b><><it's><$x;y><-n><10>");
    }
}
