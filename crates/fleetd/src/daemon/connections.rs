//! Serves HTTP on one socket: a bounded number of connections, none of which may dawdle.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::authorize::Caller;

/// How long a client may take from one answer, or from connecting, to the end of its next request's
/// headers. A client that keeps a connection open between requests connects again after that.
const HEADERS: Duration = Duration::from_secs(10);

/// Between two warnings that all places are taken, lest a client that keeps them taken fills the journal.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The bytes of a request's headers, its first line included, that are always taken; four times that never are. A page
/// token or a query has a few hundred.
const HEADERS_MAX: usize = 32 * 1024;

/// Serves the router on this socket for ever. `open` makes a connection ready and says whose it is; none ends it.
/// Without a place left, clients wait in the kernel's queue until a connection ends.
pub(super) async fn serve<L, O, F, S>(
    mut socket: L,
    open: O,
    router: Router,
    places: Arc<Semaphore>,
) -> Infallible
where
    L: Listener,
    O: Fn(L::Io) -> F,
    F: Future<Output = Option<(S, Caller)>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADERS_MAX);
    let mut told = None;
    loop {
        let place = place(&places, &mut told).await;
        let (stream, _) = socket.accept().await;
        let (opening, router, http) = (open(stream), router.clone(), http.clone());
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
            if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!("a client's connection ended: {error}");
            }
            drop(place);
        });
    }
}

async fn place(places: &Arc<Semaphore>, told: &mut Option<Instant>) -> OwnedSemaphorePermit {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return place;
    }
    if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
        *told = Some(Instant::now());
        tracing::warn!("the API has as many clients as it serves at once; further ones wait");
    }
    let place = places.clone().acquire_owned().await;
    place.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    /// Longer than anything here takes, and shorter than forever.
    const LIMIT: Duration = Duration::from_secs(60);

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    /// Connects that many clients to a server with so many places.
    async fn clients<const N: usize>(places: usize) -> [UnixStream; N] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let socket = UnixListener::bind(&path).expect("listens");
        let router = Router::new().route("/", get(|| async { "here" }));
        let open = |stream| async { Some((stream, Caller::Trusted)) };
        tokio::spawn(serve(
            socket,
            open,
            router,
            Arc::new(Semaphore::new(places)),
        ));
        let mut connected = Vec::new();
        for _ in 0..N {
            connected.push(UnixStream::connect(&path).await.expect("connects"));
        }
        connected.try_into().expect("that many")
    }

    /// All that comes until the server closes the connection.
    async fn answer(client: &mut UnixStream) -> String {
        let mut text = String::new();
        let read = tokio::time::timeout(LIMIT, client.read_to_string(&mut text)).await;
        read.expect("an end").expect("text");
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_its_headers_drop_by_drop_is_cut() {
        let [mut slow] = clients(1).await;
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
            // Closed or reset, as what was sent meanwhile was read or not.
            _ = read.read_to_string(&mut text) => {}
            () = tokio::time::sleep(LIMIT) => panic!("still connected"),
        }
        assert!(!text.contains("here"), "{text}");
        assert!(began.elapsed() >= HEADERS - Duration::from_secs(1));
    }

    #[tokio::test]
    async fn headers_are_taken_up_to_their_bound() {
        let longest = HEADERS_MAX - "GET / HTTP/1.1\r\nConnection: close\r\nX: \r\n\r\n".len();
        // hyper looks at the bound between reads, so a little more may pass.
        for (length, served) in [(longest, true), (4 * HEADERS_MAX, false)] {
            let [mut client] = clients(1).await;
            let header = "x".repeat(length);
            let request = format!("GET / HTTP/1.1\r\nConnection: close\r\nX: {header}\r\n\r\n");
            // Cut in the middle where that is too long.
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

    #[tokio::test(start_paused = true)]
    async fn without_a_place_a_client_waits_until_another_goes() {
        let [idle, mut next] = clients(1).await;
        next.write_all(REQUEST).await.expect("sends");
        let early = tokio::time::timeout(HEADERS / 2, next.readable()).await;
        assert!(early.is_err(), "more clients are served than have a place");
        drop(idle);
        assert!(answer(&mut next).await.ends_with("here"));
    }
}
