//! Sends one HTTP request at a time to fleetd, over one connection that is kept open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::response::Parts;
use hyper::rt::{Read, Write};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls::pki_types::ServerName;

use super::Endpoint;
use super::tls::{self, TlsError, TlsFiles};
use crate::remote::{OpenTunnel, Tunnel, TunnelError};

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// Nobody listens, or this user may not connect.
    #[error(
        "cannot reach fleetd at {endpoint}: {}. {}",
        bare(why),
        next_step(endpoint, why)
    )]
    Unreachable { endpoint: Endpoint, why: io::Error },
    /// No answer in time. A change may still be applied.
    #[error(
        "fleetd at {endpoint} did not answer within {}: its registry may be away (`systemctl status fleet` there tells); \
         --request-timeout sets how long to wait",
        humantime::format_duration(*.timeout)
    )]
    TimedOut {
        endpoint: Endpoint,
        timeout: Duration,
    },
    /// More than fleetd ever sends.
    #[error(
        "the answer of {endpoint} is longer than {} MiB, which fleetd never sends: {NOT_FLEETD}",
        ANSWER_MAX >> 20
    )]
    TooLong { endpoint: Endpoint },
    /// Whoever answers, it is not in HTTP.
    #[error("{endpoint} does not answer in HTTP: {why}; {NOT_FLEETD}")]
    NotHttp {
        endpoint: Endpoint,
        why: hyper::Error,
    },
    /// The connection broke after the request was on its way. A change may have been applied.
    #[error(
        "lost the connection to fleetd at {endpoint}: {why}; {}",
        if *.changing { "what was asked may have been done, so look before asking again" } else { "ask again" }
    )]
    Lost {
        endpoint: Endpoint,
        why: hyper::Error,
        changing: bool,
    },
    /// What TLS takes here is not there.
    #[error(transparent)]
    NoTls(#[from] Box<TlsError>),
    /// fleetd and this client do not trust each other.
    #[error("cannot talk to fleetd at {endpoint}: {why}")]
    Distrust { endpoint: Endpoint, why: String },
    /// `--tunnel` did not carry it.
    #[error(transparent)]
    Tunnel(#[from] Box<TunnelError>),
}

/// What to do about answers that fleetd does not give.
pub(super) const NOT_FLEETD: &str = "does fleetd listen there? --endpoint names another address";

/// The longest answer that is read. A page of a hundred units of the usual size has a thousandth of it; a hundred of
/// the largest would fit.
const ANSWER_MAX: usize = 64 << 20;

/// The operating system's sentence, without Rust's error number behind it.
fn bare(why: &io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn next_step(endpoint: &Endpoint, why: &io::Error) -> String {
    match (endpoint, why.kind()) {
        (Endpoint::Unix(path), io::ErrorKind::PermissionDenied) => match group_of(path) {
            Some(group) if group != "root" => format!(
                "Only root and the group {group} may connect: try sudo, or join it (usermod --append --groups {group} USER)"
            ),
            _ => "Only root and the socket's group may connect: try sudo".to_owned(),
        },
        (Endpoint::Unix(_), _) => {
            "Is fleetd running here? (systemctl status fleet.socket fleet.service)".to_owned()
        }
        (Endpoint::Tcp(_) | Endpoint::Tls(_), _) => {
            "Is fleetd listening there? (--endpoint names another address)".to_owned()
        }
    }
}

/// The name of the group that a file belongs to, if this machine knows it.
fn group_of(path: &Path) -> Option<String> {
    let gid = fs::metadata(path).ok()?.gid().to_string();
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id == gid).then(|| name.to_owned())
    })
}

/// A connection to fleetd, opened by the first request and again whenever fleetd has closed it.
pub(super) struct Connection {
    endpoint: Endpoint,
    tunnel: Option<Tunnel>,
    /// Read when the endpoint is one with TLS.
    tls: Option<TlsFiles>,
    open: Option<SendRequest<Full<Bytes>>>,
    /// What carries the connection.
    carrier: Option<OpenTunnel>,
    lost: bool,
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint, tunnel: Option<Tunnel>, tls: Option<TlsFiles>) -> Self {
        Self {
            endpoint,
            tunnel,
            tls,
            open: None,
            carrier: None,
            lost: false,
        }
    }

    /// One more to the same place, not open yet.
    pub(super) fn another(&self) -> Self {
        Self::new(self.endpoint.clone(), self.tunnel.clone(), self.tls.clone())
    }

    /// Whether each connection is an ssh of its own.
    pub(super) fn is_tunnelled(&self) -> bool {
        self.tunnel.is_some()
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the last request got no answer, or one that the registry gives none.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Sends a request and reads the whole answer, all within `timeout`.
    pub(super) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        json: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<(Parts, Bytes), ConnectionError> {
        let first = self.open.is_none();
        let connecting = self.tunnel.as_ref().filter(|_| first);
        let timeout = timeout + connecting.map_or(Duration::ZERO, Tunnel::patience);
        let answer = tokio::time::timeout(timeout, self.send(method, path, json)).await;
        let answer = match answer {
            Ok(Err(error @ ConnectionError::Lost { .. })) if first => self.why_lost(error).await,
            Ok(answer) => answer,
            Err(_elapsed) => Err(match &self.tunnel {
                Some(tunnel) => Box::new(tunnel.timed_out(timeout)).into(),
                None => ConnectionError::TimedOut {
                    endpoint: self.endpoint.clone(),
                    timeout,
                },
            }),
        };
        self.lost = match &answer {
            Ok((parts, _)) => parts.status == StatusCode::SERVICE_UNAVAILABLE,
            Err(_) => true,
        };
        answer
    }

    /// What a tunnel that was just opened has to do with it. One that has brought an answer has been lost, and what ssh
    /// says of that is on the screen.
    async fn why_lost<T>(&mut self, error: ConnectionError) -> Result<T, ConnectionError> {
        let Some(carrier) = self.carrier.take() else {
            return Err(error);
        };
        let broken = carrier.why_broken(&self.endpoint).await;
        Err(broken.map_or(error, |broken| Box::new(broken).into()))
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        json: Option<Vec<u8>>,
    ) -> Result<(Parts, Bytes), ConnectionError> {
        let changing = method != Method::GET;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.endpoint.host());
        if json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::from(json.unwrap_or_default()))
            .expect("paths are percent-encoded");

        let mut open = self.ready().await?;
        let lost = |why: hyper::Error| {
            let endpoint = self.endpoint.clone();
            // TLS 1.3 lets a client speak before it learns that its certificate is refused.
            if let Some(why) = self.distrust(&why) {
                ConnectionError::Distrust { endpoint, why }
            } else if why.is_parse() {
                ConnectionError::NotHttp { endpoint, why }
            } else {
                ConnectionError::Lost {
                    endpoint,
                    why,
                    changing,
                }
            }
        };
        let (parts, mut body) = open.send_request(request).await.map_err(lost)?.into_parts();
        let told = usize::try_from(body.size_hint().lower()).unwrap_or_default();
        let mut read = Vec::with_capacity(told.min(ANSWER_MAX));
        while let Some(frame) = body.frame().await {
            // Frames without data are trailers, which say nothing to us.
            let data = frame.map_err(lost)?.into_data().unwrap_or_default();
            if read.len() + data.len() > ANSWER_MAX {
                let endpoint = self.endpoint.clone();
                return Err(ConnectionError::TooLong { endpoint });
            }
            read.extend_from_slice(&data);
        }
        let answer = (parts, Bytes::from(read));
        // Only now: after a failure, or when nobody waits for the answer any more, the connection goes, so that
        // a late answer is never read as the answer to the next request.
        self.open = Some(open);
        Ok(answer)
    }

    /// The open connection, or a new one.
    async fn ready(&mut self) -> Result<SendRequest<Full<Bytes>>, ConnectionError> {
        if let Some(mut open) = self.open.take()
            && open.ready().await.is_ok()
        {
            return Ok(open);
        }
        self.connect().await
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, ConnectionError> {
        if let Some(tunnel) = &self.tunnel {
            let (stream, carrier) = tunnel.open(&self.endpoint).map_err(Box::new)?;
            self.carrier = Some(carrier);
            return match &self.endpoint {
                Endpoint::Tls(address) => self.secure(address, stream).await,
                _ => self.handshake(stream).await,
            };
        }
        let unreachable = |why| ConnectionError::Unreachable {
            endpoint: self.endpoint.clone(),
            why,
        };
        match &self.endpoint {
            Endpoint::Unix(path) => {
                self.handshake(UnixStream::connect(path).await.map_err(unreachable)?)
                    .await
            }
            Endpoint::Tcp(address) => {
                self.handshake(TcpStream::connect(address).await.map_err(unreachable)?)
                    .await
            }
            Endpoint::Tls(address) => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                self.secure(address, stream).await
            }
        }
    }

    /// TLS first, then HTTP.
    async fn secure<S>(
        &self,
        address: &str,
        stream: S,
    ) -> Result<SendRequest<Full<Bytes>>, ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let endpoint = || self.endpoint.clone();
        let files = self.tls.as_ref();
        let files = files.ok_or_else(|| Box::new(TlsError::NoAuthority(endpoint().to_string())))?;
        let connector = files.connector().map_err(Box::new)?;
        // What the certificate must be for: the host without its port, and an IPv6 address without its brackets.
        let name = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = name.trim_matches(['[', ']']);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| Box::new(TlsError::from(error)))?;
        let stream =
            connector
                .connect(name, stream)
                .await
                .map_err(|error| match self.distrust(&error) {
                    Some(why) => ConnectionError::Distrust {
                        endpoint: endpoint(),
                        why,
                    },
                    None => ConnectionError::Unreachable {
                        endpoint: endpoint(),
                        why: error,
                    },
                })?;
        self.handshake(stream).await
    }

    fn distrust(&self, failure: &(dyn std::error::Error + 'static)) -> Option<String> {
        let files = self.tls.as_ref()?;
        tls::told(failure, files.identity.is_some())
    }

    async fn handshake<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, ConnectionError>
    where
        TokioIo<S>: Read + Write + Unpin + Send + 'static,
    {
        let (open, driver) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|why| match self.distrust(&why) {
                    Some(why) => ConnectionError::Distrust {
                        endpoint: self.endpoint.clone(),
                        why,
                    },
                    None => ConnectionError::Lost {
                        endpoint: self.endpoint.clone(),
                        why,
                        changing: false, // Nothing was sent yet.
                    },
                })?;
        // What goes wrong on the connection is told to the request that waits on it.
        tokio::spawn(driver);
        Ok(open)
    }
}
