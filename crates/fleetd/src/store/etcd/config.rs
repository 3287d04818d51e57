//! How to reach etcd: the `etcd_*` settings, and the client options made of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between pings. A silent dead peer is found within 13 s. etcd cuts connections that ping
/// more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// The files where distributions keep the authorities that the system trusts: Debian and Arch,
/// Fedora, SUSE, Alpine.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The address of etcd, and the identity of this client.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs such as `http://127.0.0.1:2379`. The scheme is `http://` if it is missing.
    pub endpoints: Vec<String>,
    /// The beginning of every key. It ends in one slash after the check.
    pub prefix: String,
    /// The time limit of one request.
    pub request_timeout: Duration,
    /// The PEM file of the authorities that sign etcd's certificates. `None` for those of the
    /// system.
    pub ca_file: Option<PathBuf>,
    /// The PEM file of this machine's certificate.
    pub cert_file: Option<PathBuf>,
    /// The PEM file of that certificate's key.
    pub key_file: Option<PathBuf>,
    /// The name of an etcd user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
}

/// Why the settings make no store. Never normal: an operator must change them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No endpoint is set.
    #[error("etcd_servers is empty; name one server at least, such as http://127.0.0.1:2379")]
    NoEndpoint,
    /// This endpoint is not a valid address.
    #[error("etcd_servers: {0:?} is no server; write it like http://127.0.0.1:2379")]
    Endpoint(String),
    /// Only one of two options is set, and each needs the other.
    #[error("{given} is set and {missing} is not; set both")]
    Half {
        /// The option that is set.
        given: &'static str,
        /// The option that is missing.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("{option} {path}: {cause}", path = path.display())]
    File {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// A file has the wrong content.
    #[error("{option} {path}: {why}", path = path.display())]
    Content {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The missing content.
        why: String,
    },
    /// No authorities are set, and the system has none.
    #[error(
        "etcd_servers has an https:// server, etcd_cafile is not set, and this system has no authorities ({first} and the like); \
         set etcd_cafile, or install ca-certificates",
        first = SYSTEM_AUTHORITIES[0]
    )]
    NoAuthorities,
}

impl ConfigError {
    /// Returns the option that the error is about.
    fn option(&self) -> &'static str {
        match self {
            Self::NoEndpoint | Self::Endpoint(_) => "etcd_servers",
            Self::Half { given, .. } => given,
            Self::File { option, .. } | Self::Content { option, .. } => option,
            Self::NoAuthorities => "etcd_cafile",
        }
    }
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
    /// Returns the same settings in their standard spelling, after checking them.
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        if self.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        for endpoint in &mut self.endpoints {
            *endpoint = normal_endpoint(endpoint)?;
        }
        self.prefix = format!("{}/", self.prefix.trim_end_matches('/'));
        self.user()?;
        both(
            ("etcd_certfile", self.cert_file.as_deref()),
            ("etcd_keyfile", self.key_file.as_deref()),
        )?;
        Ok(self)
    }

    /// Returns the present problems with the files for TLS, by option. They are read again for each
    /// connection, so fleetd starts anyway.
    pub fn file_problems(&self) -> Vec<(&'static str, String)> {
        if !self.endpoints.iter().any(|url| url.starts_with("https://")) {
            return Vec::new();
        }
        let certificates = |text: &[u8]| CertificateDer::pem_slice_iter(text).collect();
        let key = |text: &[u8]| PrivateKeyDer::from_pem_slice(text).map(|_| Vec::new());
        let authorities = match &self.ca_file {
            Some(path) => read_pem("etcd_cafile", path, certificates),
            None => system_authorities().map(drop),
        };
        let cert =
            (self.cert_file.iter()).map(|path| read_pem("etcd_certfile", path, certificates));
        let key = (self.key_file.iter()).map(|path| read_pem("etcd_keyfile", path, key));
        let all = std::iter::once(authorities).chain(cert).chain(key);
        all.filter_map(Result::err)
            .map(|error| (error.option(), error.to_string()))
            .collect()
    }

    /// Returns the options of a connection to that endpoint. Reads the files each time, so that a
    /// renewed certificate is used without a restart.
    pub(super) fn connect_options(&self, endpoint: &str) -> Result<ConnectOptions, ConfigError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            // A member without a leader then reports that at once, instead of answering or waiting.
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
        let authorities = match &self.ca_file {
            Some(path) => read("etcd_cafile", path)?,
            None => system_authorities()?,
        };
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(authorities));
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

fn system_authorities() -> Result<Vec<u8>, ConfigError> {
    let found = SYSTEM_AUTHORITIES
        .iter()
        .find_map(|path| std::fs::read(path).ok());
    found.ok_or(ConfigError::NoAuthorities)
}

/// Reads a PEM file and checks its content.
fn read_pem(
    option: &'static str,
    path: &Path,
    parse: impl Fn(&[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error>,
) -> Result<(), ConfigError> {
    let why = match parse(&read(option, path)?) {
        Ok(found) if option == "etcd_keyfile" || !found.is_empty() => return Ok(()),
        Ok(_) => "no certificate in it".to_owned(),
        Err(pem::Error::NoItemsFound) => "no private key in it".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(ConfigError::Content {
        option,
        path: path.to_owned(),
        why,
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
    fn tls_files_are_looked_at_and_stop_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        let config = EtcdConfig {
            endpoints: vec!["https://a:1".into()],
            ca_file: Some(file("ca")),
            cert_file: Some(file("cert")),
            key_file: Some(file("key")),
            ..EtcdConfig::default()
        };
        config.clone().checked().expect("no reason not to start");
        let options = |config: &EtcdConfig| -> Vec<_> {
            let found = config.file_problems().into_iter();
            found.map(|(option, _)| option).collect()
        };
        let all = ["etcd_cafile", "etcd_certfile", "etcd_keyfile"];
        assert_eq!(options(&config), all);
        std::fs::write(file("ca"), "no certificate").expect("written");
        assert_eq!(options(&config), all);
        let key = rcgen::KeyPair::generate().expect("a key");
        let own = rcgen::CertificateParams::new(["a".to_owned()]).expect("a name");
        let own = own.self_signed(&key).expect("signed").pem();
        std::fs::write(file("ca"), &own).expect("written");
        std::fs::write(file("cert"), &own).expect("written");
        std::fs::write(file("key"), key.serialize_pem()).expect("written");
        assert_eq!(config.file_problems(), []);
        let plain = EtcdConfig {
            ca_file: Some(file("none")),
            ..EtcdConfig::default()
        };
        assert_eq!(plain.file_problems(), []);
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
