//! Sends one HTTP request at a time to fleetd, over one connection that is kept open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, IF_MATCH};
use hyper::http::response::Parts;
use hyper::rt::{Read, Write};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls::pki_types::ServerName;

use super::payload::Payload;
use super::tls::{self, TlsError, TlsFiles};
use crate::endpoint::Endpoint;
use crate::remote::{OpenTunnel, Tunnel, TunnelError};

/// The reason why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// No process listens, or this user may not connect.
    #[error(
        "cannot reach fleetd at {endpoint}: {}. {}",
        bare(why),
        next_step(endpoint, why)
    )]
    Unreachable { endpoint: Endpoint, why: io::Error },
    /// The response did not come in time. A change may still be applied.
    #[error(
        "fleetd at {endpoint} did not answer within {}: its registry may be unreachable (`systemctl status fleet` there shows it); \
         --request-timeout sets how long to wait",
        humantime::format_duration(*.timeout)
    )]
    TimedOut {
        endpoint: Endpoint,
        timeout: Duration,
    },
    /// The response is longer than fleetd ever sends.
    #[error(
        "the answer of {endpoint} is longer than {} MiB, which fleetd never sends: {NOT_FLEETD}",
        ANSWER_MAX >> 20
    )]
    TooLong { endpoint: Endpoint },
    /// The response is not HTTP.
    #[error("{endpoint} does not answer in HTTP: {why}; {NOT_FLEETD}")]
    NotHttp {
        endpoint: Endpoint,
        why: hyper::Error,
    },
    /// The connection broke after the request was on its way. A change may have been applied.
    #[error(
        "lost the connection to fleetd at {endpoint}: {why}; {}",
        if *.changing { "the change may have been made: check before you repeat it" } else { "ask again" }
    )]
    Lost {
        endpoint: Endpoint,
        why: hyper::Error,
        changing: bool,
    },
    /// A file for TLS is missing or unusable.
    #[error(transparent)]
    NoTls(#[from] Box<TlsError>),
    /// fleetd and this client do not trust each other.
    #[error("cannot talk to fleetd at {endpoint}: {why}")]
    Distrust { endpoint: Endpoint, why: String },
    /// The tunnel of `--tunnel` failed.
    #[error(transparent)]
    Tunnel(#[from] Box<TunnelError>),
}

/// The next step if a response does not come from fleetd.
pub(super) const NOT_FLEETD: &str = "does fleetd listen there? --endpoint names another address";

/// The longest response that is read. A page of a hundred units has a thousandth of it at the usual
/// size, and fits even at the largest size.
const ANSWER_MAX: usize = 64 << 20;

/// Returns the operating system's message, without Rust's error number after it.
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

/// Returns the name of a file's group. `None` if this machine does not know it.
fn group_of(path: &Path) -> Option<String> {
    let gid = fs::metadata(path).ok()?.gid().to_string();
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id == gid).then(|| name.to_owned())
    })
}

/// A connection to fleetd. The first request opens it, and opens it again whenever fleetd has
/// closed it.
pub(super) struct Connection {
    endpoint: Endpoint,
    tunnel: Option<Tunnel>,
    /// The TLS files, read for an endpoint with TLS. `None` without TLS.
    tls: Option<TlsFiles>,
    open: Option<SendRequest<Full<Bytes>>>,
    /// The tunnel that carries the connection. `None` for a direct one.
    carrier: Option<OpenTunnel>,
    lost: bool,
}

/// A response that is being received. Its connection serves the next request after all of it was
/// read.
pub(super) struct Answer {
    open: Option<SendRequest<Full<Bytes>>>,
    body: Incoming,
    /// The bytes that were received and not taken yet.
    read: BytesMut,
    changing: bool,
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

    /// Returns another connection to the same endpoint, not open yet.
    pub(super) fn another(&self) -> Self {
        Self::new(self.endpoint.clone(), self.tunnel.clone(), self.tls.clone())
    }

    /// Returns whether each connection is an ssh of its own.
    pub(super) fn is_tunnelled(&self) -> bool {
        self.tunnel.is_some()
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns whether the last request got no response, or the response that the registry is
    /// unreachable.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Sends a request and reads the whole response, all within `timeout`.
    pub(super) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        payload: Payload,
        timeout: Duration,
    ) -> Result<(Parts, Bytes), ConnectionError> {
        let whole = async |connection: &mut Self| {
            let (parts, answer) = connection.send(method, path, payload).await?;
            Ok((parts, connection.rest(answer).await?))
        };
        self.within(timeout, whole).await
    }

    /// Sends a request whose response is read line by line. Waits for its beginning for `timeout`.
    pub(super) async fn begin(
        &mut self,
        path: &str,
        timeout: Duration,
    ) -> Result<(Parts, Answer), ConnectionError> {
        let begin = async |connection: &mut Self| {
            connection.send(Method::GET, path, Payload::default()).await
        };
        self.within(timeout, begin).await
    }

    /// Returns the rest of a response, read within `timeout`.
    pub(super) async fn end(
        &mut self,
        answer: Answer,
        timeout: Duration,
    ) -> Result<Bytes, ConnectionError> {
        let rest = async |connection: &mut Self| connection.rest(answer).await;
        self.within(timeout, rest).await
    }

    /// Returns the next line of a response, read within `timeout`. `None` after the last line.
    pub(super) async fn line(
        &mut self,
        answer: &mut Answer,
        timeout: Duration,
    ) -> Result<Option<Bytes>, ConnectionError> {
        let line = async |connection: &mut Self| connection.next_line(answer).await;
        self.within(timeout, line).await
    }

    async fn within<T>(
        &mut self,
        timeout: Duration,
        exchange: impl AsyncFnOnce(&mut Self) -> Result<T, ConnectionError>,
    ) -> Result<T, ConnectionError> {
        let first = self.open.is_none();
        let connecting = self.tunnel.as_ref().filter(|_| first);
        let timeout = timeout + connecting.map_or(Duration::ZERO, Tunnel::patience);
        let answer = tokio::time::timeout(timeout, exchange(self)).await;
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
        self.lost |= answer.is_err();
        answer
    }

    /// Returns the error, with the failure of the tunnel if it was just opened. A tunnel that has
    /// already carried a response was lost, and ssh has printed the reason.
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
        payload: Payload,
    ) -> Result<(Parts, Answer), ConnectionError> {
        self.lost = false;
        let changing = method != Method::GET;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.endpoint.host());
        if payload.json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(revision) = payload.replaces {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        let request = request
            .body(Full::from(payload.json.unwrap_or_default()))
            .expect("paths are percent-encoded");

        let mut open = self.ready().await?;
        let answer = open.send_request(request).await;
        let (parts, body) = answer.map_err(|why| self.why(why, changing))?.into_parts();
        self.lost = parts.status == StatusCode::SERVICE_UNAVAILABLE;
        let answer = Answer {
            open: Some(open),
            body,
            read: BytesMut::new(),
            changing,
        };
        Ok((parts, answer))
    }

    /// Reads the next part of a response. Returns whether there was one.
    async fn read(&mut self, answer: &mut Answer) -> Result<bool, ConnectionError> {
        let Some(frame) = answer.body.frame().await else {
            // Kept only now. After a failure, or once the response is no longer awaited, the
            // connection is closed. A late response is therefore never read as the response to the
            // next request.
            self.open = answer.open.take().or(self.open.take());
            return Ok(false);
        };
        let frame = frame.map_err(|why| self.why(why, answer.changing))?;
        // Frames without data are trailers, which carry nothing for us.
        let data = frame.into_data().unwrap_or_default();
        if answer.read.len() + data.len() > ANSWER_MAX {
            let endpoint = self.endpoint.clone();
            return Err(ConnectionError::TooLong { endpoint });
        }
        answer.read.extend_from_slice(&data);
        Ok(true)
    }

    async fn rest(&mut self, mut answer: Answer) -> Result<Bytes, ConnectionError> {
        let told = usize::try_from(answer.body.size_hint().lower()).unwrap_or_default();
        answer.read.reserve(told.min(ANSWER_MAX));
        while self.read(&mut answer).await? {}
        Ok(answer.read.freeze())
    }

    async fn next_line(&mut self, answer: &mut Answer) -> Result<Option<Bytes>, ConnectionError> {
        let mut looked_at = 0;
        loop {
            let end = answer.read[looked_at..].iter().position(|it| *it == b'\n');
            if let Some(end) = end {
                return Ok(Some(answer.read.split_to(looked_at + end + 1).freeze()));
            }
            looked_at = answer.read.len();
            if !self.read(answer).await? {
                let rest = answer.read.split().freeze();
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
    }

    /// Returns why a request got no response, or only a part of it.
    fn why(&self, why: hyper::Error, changing: bool) -> ConnectionError {
        let endpoint = self.endpoint.clone();
        // With TLS 1.3 a client may send before it learns that its certificate is refused.
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
    }

    /// Returns the open connection, or opens one.
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

    /// Connects with TLS, then with HTTP.
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
        // The name that the certificate must have: the host without its port, and an IPv6 address
        // without its brackets.
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
        // A failure of the connection is returned to the request that waits on it.
        tokio::spawn(driver);
        Ok(open)
    }
}
