//! The destination of ssh: `[USER@]HOST[:PORT]`.

use std::fmt;

/// A host, and the user to log in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) user: String,
    /// The name or address; IPv6 without brackets.
    pub(crate) host: String,
    /// The port. `None` leaves it to the user's ssh configuration, and so to 22.
    pub(crate) port: Option<u16>,
}

/// The error for a text that names no host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" names no host to tunnel through: use HOST or HOST:PORT, and [ADDRESS]:PORT for IPv6"
)]
pub(crate) struct NoDestination(String);

impl Destination {
    /// Reads `n1`, `core@n1:2222`, `::1`, `[::1]:2222`. `user` is for texts without a user.
    pub(crate) fn parse(text: &str, user: &str) -> Result<Self, NoDestination> {
        let wrong = || NoDestination(text.to_owned());
        let (user, place) = text.rsplit_once('@').unwrap_or((user, text));
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, rest) = bracketed.split_once(']').ok_or_else(wrong)?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or_else(wrong)?),
                };
                (host, port)
            }
            // Two or more colons are an IPv6 address, which has a port only in brackets.
            None if place.matches(':').count() == 1 => {
                let (host, port) = place.split_once(':').ok_or_else(wrong)?;
                (host, Some(port))
            }
            None => (place, None),
        };
        let port = port
            .map(|port| port.parse().map_err(|_not_a_port| wrong()))
            .transpose()?;
        // ssh would read a leading dash as an option.
        let usable = |word: &str| {
            !word.is_empty()
                && !word.starts_with('-')
                && !word.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if !usable(user) || !usable(host) || host.contains(['[', ']', '/']) {
            return Err(wrong());
        }
        Ok(Self {
            user: user.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.user)?;
        match self.port {
            None => write!(f, "{}", self.host),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_host_with_or_without_a_port_and_a_user() {
        for (typed, shown) in [
            ("n1", "core@n1"),
            ("n1:2222", "core@n1:2222"),
            ("ada@n1:2222", "ada@n1:2222"),
            ("10.99.1.1", "core@10.99.1.1"),
            ("fe80::1%eth0", "core@fe80::1%eth0"),
            ("[::1]", "core@::1"),
            ("[::1]:2222", "core@[::1]:2222"),
        ] {
            let parsed = Destination::parse(typed, "core").expect(typed);
            assert_eq!(parsed.to_string(), shown);
        }
    }

    #[test]
    fn text_without_a_host_or_with_a_dash_is_refused() {
        for typed in [
            "",
            "@n1",
            "n1:",
            "n1:ssh",
            "n1:70000",
            "[::1]2222",
            "[::1",
            "-oProxyCommand=x",
            "core@-n1",
            "n 1",
            "ssh://n1",
        ] {
            assert!(Destination::parse(typed, "core").is_err(), "{typed}");
        }
    }
}
