//! The endpoint of fleetd: a unix socket, TLS, or plain TCP.

use std::fmt;
use std::path::PathBuf;

use hyper::http::uri::Authority;

/// The port of `http://` without one.
const HTTP_PORT: u16 = 80;

/// The port of `https://` without one.
const HTTPS_PORT: u16 = 443;

/// An address of fleetd's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `unix:///PATH`.
    Unix(PathBuf),
    /// `http://HOST[:PORT]`, kept as `HOST:PORT`.
    Tcp(String),
    /// `https://HOST[:PORT]`, kept as `HOST:PORT`.
    Tls(String),
}

/// The error for a text that is no endpoint. The first two texts begin as in fleet 1.0.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    /// The text has no `://`.
    #[error("URL scheme undefined; use unix:///PATH, https://HOST:PORT or http://HOST:PORT")]
    NoScheme,
    /// The text is `unix://name`, without a path, or has an unknown scheme.
    #[error(
        "unable to connect to host \"{host}\" with scheme \"{scheme}\"; use unix:///PATH, https://HOST:PORT or http://HOST:PORT"
    )]
    Unknown { scheme: String, host: String },
}

impl Endpoint {
    /// Reads `unix:///PATH`, `https://HOST[:PORT]` or `http://HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = text.split_once("://").ok_or(EndpointError::NoScheme)?;
        let unknown = || EndpointError::Unknown {
            scheme: scheme.to_owned(),
            host: rest.to_owned(),
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "http" | "https" => {
                let authority: Authority = rest
                    .trim_end_matches('/')
                    .parse()
                    .map_err(|_invalid| unknown())?;
                let host = authority.host();
                if scheme == "http" {
                    let port = authority.port_u16().unwrap_or(HTTP_PORT);
                    return Ok(Self::Tcp(format!("{host}:{port}")));
                }
                let port = authority.port_u16().unwrap_or(HTTPS_PORT);
                Ok(Self::Tls(format!("{host}:{port}")))
            }
            _ => Err(unknown()),
        }
    }

    /// Returns the value of the `Host` header.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Tcp(address) | Self::Tls(address) => address,
        }
    }

    /// Returns the argument of `fleetctl fd-forward` that reaches the endpoint. For a socket it is
    /// the bare path, which fleet 1.0 accepted.
    pub(crate) fn dialled(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            // TLS passes through the forwarded connection, from here to fleetd.
            Self::Tcp(address) | Self::Tls(address) => format!("http://{address}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_prints_as_it_was_typed() {
        for text in [
            "unix:///run/fleet.sock",
            "http://[::1]:8080",
            "https://node1:49153",
        ] {
            assert_eq!(Endpoint::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(
            Endpoint::parse("http://node1/").expect("valid"),
            Endpoint::Tcp("node1:80".into())
        );
        assert_eq!(
            Endpoint::parse("https://[::1]/").expect("valid"),
            Endpoint::Tls("[::1]:443".into())
        );
    }

    #[test]
    fn invalid_endpoint_is_refused_with_its_fault() {
        let error = |text| Endpoint::parse(text).expect_err("invalid").to_string();
        assert_eq!(
            error("nosuch"),
            "URL scheme undefined; use unix:///PATH, https://HOST:PORT or http://HOST:PORT"
        );
        assert_eq!(
            error("unix://nosuch.sock"),
            "unable to connect to host \"nosuch.sock\" with scheme \"unix\"; use unix:///PATH, https://HOST:PORT or http://HOST:PORT"
        );
        assert!(
            error("ftp://x").starts_with("unable to connect to host \"x\" with scheme \"ftp\"; ")
        );
        assert!(error("https://a b").starts_with("unable to connect to host \"a b\""));
    }
}
