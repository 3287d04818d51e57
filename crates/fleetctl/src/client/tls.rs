//! TLS to fleetd: the files of --ca-file, --cert-file and --key-file, and explanations of failures.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore};

/// The files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The authority that signs fleetd's certificate.
    pub(crate) ca: PathBuf,
    /// The client's certificate and its key. `None` if the client shows none.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// The reason why there is no TLS with fleetd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// No trusted authority is given.
    #[error(
        "{0} asks for TLS: name the authority that signs fleetd's certificate with --ca-file, and your own certificate with \
         --cert-file and --key-file"
    )]
    NoAuthority(String),
    /// Only one of the two files is given.
    #[error("--cert-file and --key-file go together: give both")]
    Half,
    /// A file is missing, or has other content.
    #[error("{flag} {}: {why}", .path.display())]
    File {
        flag: &'static str,
        path: PathBuf,
        why: String,
    },
    /// The files do not work together, for example because the key is another certificate's.
    #[error("--cert-file and --key-file cannot be used: {0}")]
    Unfit(rustls::Error),
    /// No certificate can name this host.
    #[error("{0} is no name that a certificate could have")]
    Name(#[from] InvalidDnsNameError),
}

impl TlsFiles {
    /// Returns the files of the flags for that endpoint.
    pub(crate) fn of(
        endpoint: &str,
        ca: Option<&str>,
        cert: Option<&str>,
        key: Option<&str>,
    ) -> Result<Self, TlsError> {
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err(TlsError::Half),
        };
        let ca = ca.ok_or_else(|| TlsError::NoAuthority(endpoint.to_owned()))?;
        Ok(Self {
            ca: ca.into(),
            identity,
        })
    }

    /// Reads the files.
    pub(super) fn connector(&self) -> Result<TlsConnector, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates("--ca-file", &self.ca)? {
            roots.add(authority).map_err(|error| TlsError::File {
                flag: "--ca-file",
                path: self.ca.clone(),
                why: error.to_string(),
            })?;
        }
        let fleetd = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| TlsError::File {
                flag: "--ca-file",
                path: self.ca.clone(),
                why: error.to_string(),
            })?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unfit)?
            .with_webpki_verifier(fleetd);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates("--cert-file", cert)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| bad("--key-file", key, "no private key in it", error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsError::Unfit)?
            }
        };
        Ok(Arc::new(config).into())
    }
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = "no certificate in it";
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(bad(flag, path, none, pem::Error::NoItemsFound)),
        Err(error) => Err(bad(flag, path, none, error)),
    }
}

fn bad(flag: &'static str, path: &Path, none: &str, error: pem::Error) -> TlsError {
    let why = match error {
        pem::Error::NoItemsFound => none.to_owned(),
        pem::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::PermissionDenied => "you may not read it".to_owned(),
            _ => error.to_string(),
        },
        error => error.to_string(),
    };
    TlsError::File {
        flag,
        path: path.to_owned(),
        why,
    }
}

/// Returns what TLS has to do with this failure, with the next step. `None` for other failures.
pub(super) fn told(failure: &(dyn Error + 'static), shows_certificate: bool) -> Option<String> {
    let mut cause = Some(failure);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(in_words(tls, shows_certificate));
        }
        // `source` of an io::Error skips its own content.
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref())
        {
            return Some(in_words(tls, shows_certificate));
        }
        cause = error.source();
    }
    None
}

fn in_words(error: &rustls::Error, shows_certificate: bool) -> String {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is not signed by the authority in --ca-file; is that the authority of this fleet, and the \
             address right?"
                .to_owned()
        }
        InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired: renew the file that api_certfile names there".to_owned(),
        InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet: is the clock right, here and there?".to_owned(),
        InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name: use a name or address in --endpoint that the certificate has"
            .to_owned(),
        AlertReceived(AlertDescription::CertificateRequired) => {
            "it serves only clients with a certificate: give --cert-file and --key-file".to_owned()
        }
        AlertReceived(AlertDescription::CertificateExpired) => {
            "it finds that the certificate of --cert-file has expired, or is not valid yet: renew it".to_owned()
        }
        AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::CertificateUnknown,
        ) if shows_certificate => {
            "it does not accept the certificate of --cert-file: is it signed by the authority that api_cafile names there?"
                .to_owned()
        }
        AlertReceived(AlertDescription::HandshakeFailure) if !shows_certificate => {
            "it may serve only clients with a certificate: give --cert-file and --key-file".to_owned()
        }
        InvalidMessage(_) => {
            "it does not speak TLS: a fleetd without api_certfile? (http:// is for insecure_tcp=true)".to_owned()
        }
        error => format!("TLS failed: {error}"),
    }
}
