//! How to reach etcd: the `etcd_*` settings, and what the client makes of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Finds a peer that is silent although dead within 13 s. etcd cuts connections that ping more often than
/// every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Where etcd is, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs such as `http://127.0.0.1:2379`; without a scheme, `http://` is meant.
    pub endpoints: Vec<String>,
    /// What every key starts with; one slash is put at its end.
    pub prefix: String,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// The PEM file of the authorities that sign etcd's certificates; `https://` needs it.
    pub ca_file: Option<PathBuf>,
    /// The PEM file of the certificate that this machine shows.
    pub cert_file: Option<PathBuf>,
    /// The PEM file of that certificate's key.
    pub key_file: Option<PathBuf>,
    /// The name of a user of etcd.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
}

/// Why no store can be made of the settings. Never normal: it takes an operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is nothing to connect to.
    #[error("etcd_servers is empty; name one server at least, such as http://127.0.0.1:2379")]
    NoEndpoint,
    /// This is nothing to connect to.
    #[error("etcd_servers: {0:?} is no server; write it like http://127.0.0.1:2379")]
    Endpoint(String),
    /// There are options that only make sense together.
    #[error("{given} is set and {missing} is not; set both")]
    Half {
        /// The one that is there.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("{option} {path}: {cause}", path = path.display())]
    File {
        /// The setting that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            prefix: "/_coreos.com/fleet/".into(),
            request_timeout: Duration::from_secs(1),
            ca_file: None,
            cert_file: None,
            key_file: None,
            username: None,
            password: None,
        }
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("request_timeout", &self.request_timeout)
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "(set)"))
            .finish()
    }
}

impl EtcdConfig {
    /// The same settings in their one spelling, found to make sense.
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        if self.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        for endpoint in &mut self.endpoints {
            *endpoint = normal_endpoint(endpoint)?;
        }
        self.prefix = format!("{}/", self.prefix.trim_end_matches('/'));
        let is_https = |endpoint: &String| endpoint.starts_with("https://");
        if self.endpoints.iter().any(is_https) && self.ca_file.is_none() {
            return Err(ConfigError::Half {
                given: "an https:// server in etcd_servers",
                missing: "etcd_cafile",
            });
        }
        self.user()?;
        self.tls()?;
        Ok(self)
    }

    /// What a connection to that endpoint is made with. Reads the files each time, so that a renewed
    /// certificate is used without a restart.
    pub(super) fn connect_options(&self, endpoint: &str) -> Result<ConnectOptions, ConfigError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            // A member that lost its cluster says so at once, instead of answering or waiting.
            .with_require_leader(true);
        if let Some((name, password)) = self.user()? {
            options = options.with_user(name, password);
        }
        if endpoint.starts_with("https://") {
            options = options.with_tls(self.tls()?);
        }
        Ok(options)
    }

    fn user(&self) -> Result<Option<(&str, &str)>, ConfigError> {
        both(
            ("etcd_username", self.username.as_deref()),
            ("etcd_password", self.password.as_deref()),
        )
    }

    fn tls(&self) -> Result<TlsOptions, ConfigError> {
        let mut tls = TlsOptions::new();
        if let Some(path) = &self.ca_file {
            tls = tls.ca_certificate(Certificate::from_pem(read("etcd_cafile", path)?));
        }
        let pair = both(
            ("etcd_certfile", self.cert_file.as_deref()),
            ("etcd_keyfile", self.key_file.as_deref()),
        )?;
        if let Some((cert, key)) = pair {
            let (cert, key) = (read("etcd_certfile", cert)?, read("etcd_keyfile", key)?);
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(tls)
    }
}

type Named<'a, T> = (&'static str, Option<&'a T>);

fn both<'a, T: ?Sized>(
    (one, first): Named<'a, T>,
    (other, second): Named<'a, T>,
) -> Result<Option<(&'a T, &'a T)>, ConfigError> {
    let half = |given, missing| Err(ConfigError::Half { given, missing });
    match (first, second) {
        (Some(first), Some(second)) => Ok(Some((first, second))),
        (None, None) => Ok(None),
        (Some(_), None) => half(one, other),
        (None, Some(_)) => half(other, one),
    }
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|cause| ConfigError::File {
        option,
        path: path.to_owned(),
        cause,
    })
}

fn normal_endpoint(given: &str) -> Result<String, ConfigError> {
    let (scheme, address) = given
        .trim()
        .split_once("://")
        .unwrap_or(("http", given.trim()));
    let address = address.trim_end_matches('/');
    let is_address =
        !address.is_empty() && !address.contains(|c: char| c == '/' || c.is_whitespace());
    if !is_address || !["http", "https"].contains(&scheme) {
        return Err(ConfigError::Endpoint(given.to_owned()));
    }
    Ok(format!("{scheme}://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_prefix(prefix: &str) -> String {
        let config = EtcdConfig {
            prefix: prefix.into(),
            ..EtcdConfig::default()
        };
        config.checked().expect("valid").prefix
    }

    fn with_endpoint(endpoint: &str) -> Result<Vec<String>, String> {
        let config = EtcdConfig {
            endpoints: vec![endpoint.into()],
            ..EtcdConfig::default()
        };
        let checked = config.checked().map_err(|error| error.to_string());
        Ok(checked?.endpoints)
    }

    #[test]
    fn a_prefix_ends_in_one_slash() {
        assert_eq!(with_prefix("/_coreos.com/fleet/"), "/_coreos.com/fleet/");
        assert_eq!(with_prefix("fleet"), "fleet/");
        assert_eq!(with_prefix("/fleet//"), "/fleet/");
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_http() {
        assert_eq!(
            with_endpoint("10.0.0.1:2379"),
            Ok(vec!["http://10.0.0.1:2379".into()])
        );
        assert_eq!(with_endpoint("http://a:1/"), Ok(vec!["http://a:1".into()]));
        for bad in ["", "http://", "ftp://a:1", "a b"] {
            with_endpoint(bad).expect_err(bad);
        }
    }

    #[test]
    fn https_asks_for_the_authority_to_trust() {
        assert_eq!(
            with_endpoint("https://a:1").expect_err("no authority"),
            "an https:// server in etcd_servers is set and etcd_cafile is not; set both"
        );
    }

    #[test]
    fn a_password_is_never_printed() {
        let config = EtcdConfig {
            username: Some("root".into()),
            password: Some("hunter2".into()),
            ..EtcdConfig::default()
        };
        let printed = format!("{config:?}");
        assert!(
            printed.contains("root") && !printed.contains("hunter2"),
            "{printed}"
        );
    }
}
