//! Bodies that are too large, too slow, too deep or not JSON are refused as early as possible.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures_util::stream;

use super::answers::assert_shape;
use super::world::World;

async fn refusal(body: impl Into<Body>, length: Option<u64>) -> (u16, String) {
    let request = Request::put("/fleet/v1/units/x.service");
    let mut request = request.header("Content-Type", "application/json");
    if let Some(length) = length {
        request = request.header("Content-Length", length);
    }
    let request = request.body(body.into()).expect("a request");
    let answer = World::start().await.ask(request).await;
    assert_shape(&answer, "PUT");
    (answer.status.as_u16(), answer.body)
}

#[tokio::test]
async fn body_with_a_too_large_length_is_refused_unread() {
    let unread = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
        panic!("it was read")
    });
    let (status, text) = refusal(Body::from_stream(unread), Some(100 << 20)).await;
    assert_eq!(status, 413);
    assert!(
        text.contains("request body is too large (max 1048576 bytes)"),
        "{text}"
    );
}

#[tokio::test]
async fn a_body_without_end_is_read_up_to_the_limit() {
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b' '; 1 << 16])));
    assert_eq!(refusal(Body::from_stream(endless), None).await.0, 413);
}

#[tokio::test(start_paused = true)]
async fn body_that_does_not_arrive_is_a_client_error() {
    let drops = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, Infallible>(Bytes::from(" ")), ()))
    });
    let (status, text) = refusal(Body::from_stream(Box::pin(drops)), None).await;
    assert_eq!(status, 408);
    assert!(
        text.contains("the request body did not arrive within 10s"),
        "{text}"
    );
}

#[tokio::test]
async fn json_that_is_no_unit_is_refused_with_the_place() {
    let deep = "[".repeat(100_000);
    let deep_value = format!("{{\"x\":{}}}", "[".repeat(100_000));
    for (body, sentence) in [
        (&b""[..], "EOF while parsing a value at line 1 column 0"),
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b"\xff\xfe", "expected value at line 1 column 1"),
        (
            b"{\"name\":\"\xff\"}",
            "invalid unicode code point at line 1 column",
        ),
        (b"{} {}", "trailing characters at line 1 column 4"),
        (
            b"{\"options\":[{\"name\":1}]}",
            "invalid type: integer `1`, expected a string",
        ),
        (b"{\"content\":\"*\"}", "Invalid symbol 42, offset 0"),
        (deep.as_bytes(), "invalid type: sequence, expected a string"),
        (
            deep_value.as_bytes(),
            "expected value at line 1 column 100006",
        ),
    ] {
        let (status, text) = refusal(Bytes::copy_from_slice(body), None).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(status, 400, "{shown}: {text}");
        assert!(
            text.contains(&format!("unable to decode body: {sentence}")),
            "{shown}: {text}"
        );
    }
}
