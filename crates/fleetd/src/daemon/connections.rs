//! Serves HTTP on one socket: a bounded number of connections, none of which may dawdle.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a client may take from one answer, or from connecting, to the end of its next request's headers. Whoever
/// keeps a connection open between requests connects again after that.
const HEADERS: Duration = Duration::from_secs(10);

/// Between two warnings that all places are taken, lest a client that keeps them taken fills the journal.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Serves the router on this socket for ever. Without a place left, clients wait in the kernel's queue until a
/// connection ends.
pub(super) async fn serve<L: Listener>(
    mut socket: L,
    router: Router,
    places: Arc<Semaphore>,
) -> Infallible {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let mut told = None;
    loop {
        let place = place(&places, &mut told).await;
        let (stream, _) = socket.accept().await;
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
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
        tokio::spawn(serve(socket, router, Arc::new(Semaphore::new(places))));
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
