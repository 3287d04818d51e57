//! TLS on TCP sockets. Only clients with a certificate signed by the configured authority reach
//! HTTP.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;

/// The time limit of a client's handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The time for a refused client to disconnect, and the number of pieces read of what it still
/// sends.
const PARTING: Duration = Duration::from_secs(1);
const UNREAD_MAX: usize = 64;

/// Why no client can be served over TLS. An operator must act.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A file is missing, or has the wrong content.
    #[error("{option} {path}: {why}", path = path.display())]
    File {
        option: &'static str,
        path: PathBuf,
        why: String,
    },
    /// The files do not match each other.
    #[error("api_cafile, api_certfile and api_keyfile cannot be used: {0}")]
    Unfit(String),
}

/// The identity of the content of a file: its inode, size, and time of change.
type Stamp = [Option<(u64, u64, i64, i64)>; 3];

/// The server's side of TLS. It uses renewed certificates from the next connection on.
pub(super) struct Tls {
    files: TlsFiles,
    /// The last usable configuration, the stamp of the files last read, and whether those were
    /// usable.
    kept: Mutex<Option<(Stamp, Arc<ServerConfig>)>>,
}

impl Tls {
    pub(super) fn new(files: TlsFiles) -> Self {
        Self {
            files,
            kept: Mutex::new(None),
        }
    }

    /// Returns the present content of the files. If they cannot be used, the old content stays in
    /// force: a half-copied certificate disconnects no client.
    pub(super) fn current(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = [&self.files.ca, &self.files.cert, &self.files.key].map(|path| stamp(path));
        if let Some((known, config)) = &*kept
            && *known == stamp
        {
            return Ok(config.clone());
        }
        match (read(&self.files), &mut *kept) {
            (Ok(config), kept) => {
                *kept = Some((stamp, config.clone()));
                Ok(config)
            }
            (Err(error), Some((known, config))) => {
                tracing::warn!("{error}; serving TLS with what was there before");
                *known = stamp;
                Ok(config.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Does the handshake. `None` if the client cannot be served.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let client = stream.peer_addr().map(|address| address.to_string());
        let client = client.unwrap_or_else(|_| "a client".to_owned());
        let config = match self.current() {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!("{client} is not served: {error}");
                return None;
            }
        };
        let handshake = TlsAcceptor::from(config).accept(stream).into_fallible();
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => Some(stream),
            // This helps an operator who looks for the reason. It is no warning, because strangers
            // could fill the journal with it.
            Ok(Err((error, stream))) => {
                tracing::debug!("{client} is not served: {error}");
                part(stream).await;
                None
            }
            Err(_) => None,
        }
    }
}

/// Gives a refused client time to read why. If the connection were closed with its request unread,
/// the client would only see a reset.
pub(super) async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let read_out = async {
        let mut unread = [0; 4096];
        let _ = stream.shutdown().await;
        for _ in 0..UNREAD_MAX {
            if !matches!(stream.read(&mut unread).await, Ok(length) if length > 0) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PARTING, read_out).await;
}

fn stamp(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("api_cafile", &files.ca)? {
        roots.add(authority).map_err(|error| TlsError::File {
            option: "api_cafile",
            path: files.ca.clone(),
            why: error.to_string(),
        })?;
    }
    let chain = certificates("api_certfile", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| bad("api_keyfile", &files.key, "no private key in it", error))?;
    let unfit = |error: &dyn std::error::Error| TlsError::Unfit(error.to_string());
    // This names the provider, because another library may add a second one to the process.
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|error| unfit(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(clients)
                .with_single_cert(chain, key)
        })
        .map_err(|error: rustls::Error| unfit(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = "no certificate in it";
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(bad(option, path, none, pem::Error::NoItemsFound)),
        Err(error) => Err(bad(option, path, none, error)),
    }
}

fn bad(option: &'static str, path: &Path, none: &str, error: pem::Error) -> TlsError {
    let why = match error {
        pem::Error::NoItemsFound => none.to_owned(),
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is no such file".to_owned()
        }
        error => error.to_string(),
    };
    TlsError::File {
        option,
        path: path.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(folder: &Path) {
        let key = KeyPair::generate().expect("a key");
        let own = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let own = own.self_signed(&key).expect("signed");
        for (name, text) in [
            ("ca", own.pem()),
            ("cert", own.pem()),
            ("key", key.serialize_pem()),
        ] {
            fs::write(folder.join(name), text).expect("written");
        }
    }

    fn files(folder: &Path) -> TlsFiles {
        TlsFiles {
            ca: folder.join("ca"),
            cert: folder.join("cert"),
            key: folder.join("key"),
        }
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let tls = Tls::new(files(folder.path()));
        let why = || tls.current().expect_err("unusable").to_string();
        assert!(why().starts_with("api_cafile /"), "{}", why());
        assert!(why().ends_with("/ca: there is no such file"), "{}", why());
        write(folder.path());
        fs::write(folder.path().join("key"), "").expect("written");
        assert!(why().ends_with("/key: no private key in it"), "{}", why());
        let other = KeyPair::generate().expect("a key").serialize_pem();
        fs::write(folder.path().join("key"), other).expect("written");
        assert!(why().contains("cannot be used: "), "{}", why());
    }

    #[test]
    fn renewed_files_are_used_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path());
        let tls = Tls::new(files(folder.path()));
        let first = tls.current().expect("usable");
        assert!(Arc::ptr_eq(&first, &tls.current().expect("usable")));
        write(folder.path());
        let second = tls.current().expect("usable");
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(folder.path().join("cert"), "half").expect("written");
        assert!(Arc::ptr_eq(&second, &tls.current().expect("as before")));
    }
}
