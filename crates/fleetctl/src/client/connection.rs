//! Sends one HTTP request at a time to fleetd, over one connection that is kept open.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::response::Parts;
use hyper::rt::{Read, Write};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::Endpoint;
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
    /// The connection broke after the request was on its way. A change may have been applied.
    #[error(
        "lost the connection to fleetd at {endpoint}: {why}; what was asked may have been done, so look before asking again"
    )]
    Lost {
        endpoint: Endpoint,
        why: hyper::Error,
    },
    /// `--tunnel` did not carry it.
    #[error(transparent)]
    Tunnel(#[from] Box<TunnelError>),
}

/// The operating system's sentence, without Rust's error number behind it.
fn bare(why: &io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn next_step(endpoint: &Endpoint, why: &io::Error) -> &'static str {
    match (endpoint, why.kind()) {
        (_, io::ErrorKind::PermissionDenied) => {
            "Only root and the socket's group may connect: try sudo"
        }
        (Endpoint::Unix(_), _) => "Is fleet.socket running? (systemctl status fleet.socket)",
        (Endpoint::Tcp(_), _) => "Is fleetd listening there? (--endpoint names another address)",
    }
}

/// A connection to fleetd, opened by the first request and again whenever fleetd has closed it.
pub(super) struct Connection {
    endpoint: Endpoint,
    tunnel: Option<Tunnel>,
    open: Option<SendRequest<Full<Bytes>>>,
    /// What carries the open connection; and after a failure, what carried it.
    carrier: Option<OpenTunnel>,
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint, tunnel: Option<Tunnel>) -> Self {
        Self {
            endpoint,
            tunnel,
            open: None,
            carrier: None,
        }
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
        let error = match answer {
            Ok(Err(error)) => error,
            Ok(answer) => return answer,
            Err(_elapsed) => match &self.tunnel {
                Some(tunnel) => Box::new(tunnel.timed_out(timeout)).into(),
                None => ConnectionError::TimedOut {
                    endpoint: self.endpoint.clone(),
                    timeout,
                },
            },
        };
        match (error, self.carrier.take()) {
            // Once it has brought an answer, it has been lost, and what ssh says of that is on the screen.
            (error @ ConnectionError::Lost { .. }, Some(carrier)) if first => {
                let broken = carrier.why_broken(&self.endpoint).await;
                Err(broken.map_or(error, |broken| Box::new(broken).into()))
            }
            (error, _ended) => Err(error),
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        json: Option<Vec<u8>>,
    ) -> Result<(Parts, Bytes), ConnectionError> {
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
        let exchange = async {
            let (parts, body) = open.send_request(request).await?.into_parts();
            Ok((parts, body.collect().await?.to_bytes()))
        };
        let answer = exchange.await.map_err(|why| ConnectionError::Lost {
            endpoint: self.endpoint.clone(),
            why,
        })?;
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
            return self.handshake(stream).await;
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
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, ConnectionError>
    where
        TokioIo<S>: Read + Write + Unpin + Send + 'static,
    {
        let (open, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|why| ConnectionError::Lost {
                endpoint: self.endpoint.clone(),
                why,
            })?;
        // What goes wrong on the connection is told to the request that waits on it.
        tokio::spawn(driver);
        Ok(open)
    }
}
