//! Serves HTTP on one socket: a bounded number of connections, each with time limits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::serve::Listener;
use futures_util::future::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::authorize::Caller;
use super::shares::{Client, Places};
use super::stalled::Bounded;
use super::tls::part;

/// The time from one answer, or from connecting, to the end of the next request's headers. A client
/// that keeps a connection open for longer between requests must connect again.
const HEADERS: Duration = Duration::from_secs(10);

/// The time between two warnings that all places are taken. A client that keeps them taken must not
/// fill the journal.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The size of a request's headers, with its first line, that is always accepted. Four times that
/// is always refused. A page token or a query has a few hundred bytes.
const HEADERS_MAX: usize = 32 * 1024;

/// The number of clients without a place that get that answer at once. Each takes a second.
const PARTING: usize = 16;

/// The answer to a client without a place. A TLS client would not understand it.
pub(super) const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
Connection: close\r\nContent-Length: 110\r\n\r\n\
{\"error\":{\"code\":503,\"message\":\"fleetd serves no more of your connections at once; close some and try again\"}}";

/// How connections of one socket are served.
pub(super) struct Served<W> {
    pub(super) router: Router,
    pub(super) places: Places,
    /// Returns the client of a connection.
    pub(super) whose: W,
    /// The answer to a client without a place.
    pub(super) busy: &'static [u8],
}

/// Serves the router on this socket forever. `open` prepares a connection and names its client;
/// `None` closes it.
pub(super) async fn serve<L, W, O, F, S>(mut socket: L, served: Served<W>, open: O) -> Infallible
where
    L: Listener,
    W: Fn(&L::Io, &L::Addr) -> Client,
    O: Fn(L::Io) -> F,
    F: Future<Output = Option<(S, Caller)>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADERS_MAX);
    let mut told: Option<Instant> = None;
    let parting = Arc::new(Semaphore::new(PARTING));
    let busy = served.busy;
    loop {
        let (mut stream, address) = socket.accept().await;
        let client = (served.whose)(&stream, &address);
        let Some(place) = served.places.take(client) else {
            if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                told = Some(Instant::now());
                tracing::warn!("{client} has as many connections as the API serves at once");
            }
            // Only a few at once. Further clients are disconnected without an answer.
            if let Ok(parting) = parting.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = stream.write_all(busy).now_or_never();
                    part(stream).await;
                    drop(parting);
                });
            }
            continue;
        };
        let (opening, router, http) = (open(stream), served.router.clone(), http.clone());
        tokio::spawn(async move {
            let Some((stream, caller)) = opening.await else {
                return;
            };
            let answer = service_fn(move |request: Request<_>| {
                let answer = caller
                    .clone()
                    .answer(router.clone(), request.map(Body::new));
                async { Ok::<_, Infallible>(answer.await) }
            });
            let stream = TokioIo::new(Bounded::new(stream, client.patience()));
            if let Err(error) = http.serve_connection(stream, answer).await {
                tracing::debug!("a client's connection ended: {error}");
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;
    use crate::daemon::shares::SHARE;

    /// Longer than anything here takes.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Connects that many clients of one user to a server.
    async fn clients(count: usize) -> Vec<UnixStream> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let socket = UnixListener::bind(&path).expect("listens");
        let router = Router::new().route("/", get(|| async { "here" }));
        let open = |stream| async { Some((stream, Caller::Trusted)) };
        let served = Served {
            router,
            places: Places::default(),
            whose: |_: &UnixStream, _: &_| Client::User(1000),
            busy: BUSY,
        };
        tokio::spawn(serve(socket, served, open));
        let mut connected = Vec::new();
        for _ in 0..count {
            connected.push(UnixStream::connect(&path).await.expect("connects"));
        }
        connected
    }

    /// Reads until the server closes the connection.
    async fn answer(client: &mut UnixStream) -> String {
        let mut text = String::new();
        let read = tokio::time::timeout(LIMIT, client.read_to_string(&mut text)).await;
        read.expect("an end").expect("text");
        text
    }

    #[tokio::test(start_paused = true)]
    async fn client_with_slow_headers_is_disconnected() {
        let mut slow = clients(1).await.remove(0);
        let began = Instant::now();
        let (mut read, mut write) = slow.split();
        let mut text = String::new();
        let drops = async {
            while write.write_all(b"X").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = drops => {}
            // It is closed or reset, depending on whether the rest of the request was read.
            _ = read.read_to_string(&mut text) => {}
            () = tokio::time::sleep(LIMIT) => panic!("still connected"),
        }
        assert!(!text.contains("here"), "{text}");
        assert!(began.elapsed() >= HEADERS - Duration::from_secs(1));
    }

    #[tokio::test]
    async fn headers_are_taken_up_to_their_bound() {
        let longest = HEADERS_MAX - "GET / HTTP/1.1\r\nConnection: close\r\nX: \r\n\r\n".len();
        // hyper checks the bound between reads, so a little more may pass.
        for (length, served) in [(longest, true), (4 * HEADERS_MAX, false)] {
            let mut client = clients(1).await.remove(0);
            let header = "x".repeat(length);
            let request = format!("GET / HTTP/1.1\r\nConnection: close\r\nX: {header}\r\n\r\n");
            // It is cut off in the middle if that is too long.
            let _ = client.write_all(request.as_bytes()).await;
            let mut text = Vec::new();
            let _ = client.read_to_end(&mut text).await;
            let text = String::from_utf8_lossy(&text);
            let (begins, ends) = match served {
                true => ("HTTP/1.1 200 OK\r\n", "here"),
                false => ("HTTP/1.1 431 Request Header Fields Too Large\r\n", ""),
            };
            assert!(text.starts_with(begins), "{length}: {text}");
            assert!(text.ends_with(ends), "{length}: {text}");
        }
    }

    #[tokio::test]
    async fn client_beyond_its_share_gets_503_and_is_served_later() {
        let mut idle = clients(SHARE + 1).await;
        let mut next = idle.pop().expect("connected");
        let text = answer(&mut next).await;
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").expect("a body");
        assert!(
            head.ends_with(&format!("Content-Length: {}", body.len())),
            "{text}"
        );
    }
}
