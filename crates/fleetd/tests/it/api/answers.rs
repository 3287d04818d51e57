//! Every request gets an answer, and every refusal has the shape of fleet 1.0's.

use axum::body::Body;
use axum::http::Request;
use axum::http::request::Builder;
use fleet_core::api::ErrorBody;
use proptest::prelude::*;

use super::world::{Answer, World};

/// Checks that a refusal has fleet 1.0's body, with the status in it. `what` begins with the
/// request's method.
pub(crate) fn assert_shape(answer: &Answer, what: &str) {
    let status = answer.status;
    if what.starts_with("HEAD ") {
        return assert_eq!(answer.body, "", "{what}");
    }
    assert!(
        !status.is_informational() && !status.is_redirection(),
        "{what}: {status}"
    );
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(answer.content_type(), Some("application/json"), "{what}");
        let body: ErrorBody = serde_json::from_str(&answer.body).expect(what);
        assert_eq!(body.error.code, status.as_u16(), "{what}");
    } else if !answer.body.is_empty() {
        assert_eq!(answer.content_type(), Some("application/json"), "{what}");
    }
}

async fn status(world: &World, request: Builder) -> u16 {
    let request = request.body(Body::empty()).expect("a request");
    let what = format!("{} {}", request.method(), request.uri());
    let answer = world.ask(request).await;
    assert_shape(&answer, &what);
    answer.status.as_u16()
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let world = World::start().await;
    for path in [
        "/fleet/v1/machines",
        "/fleet/v1/units",
        "/fleet/v1/discovery",
    ] {
        let answer = world
            .ask(Request::head(path).body(Body::empty()).expect("a request"))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (200, ""),
            "{path}"
        );
    }
}

#[tokio::test]
async fn unknown_path_and_unsupported_method_differ() {
    let world = World::start().await;
    for (path, expected) in [
        ("/", 405),
        ("/fleet", 404),
        ("/fleet/", 404),
        ("/fleet/v1", 405),
        ("/fleet/v1/", 404),
        ("/v1-alpha", 405),
        ("/v1-alpha/", 404),
        ("/v1-alpha/units", 200),
        ("/fleet/v1/discovery/", 404),
        ("/fleet/v1/state/", 404),
        ("/fleet/v1//units", 404),
        ("/fleet/v1/units/%ff.service", 400),
        ("/fleet/v1/units?alt=json", 200),
        ("/fleet/v1/units?alt=json&prettyPrint=false&&=", 200),
        ("/fleet/v1/units?nextPageToken=", 400),
        ("/fleet/v1/units?nextPageToken=ZAABAA==", 200),
        ("/fleet/v1/units?nextPageToken=ZAD__w==", 200),
        ("/fleet/v1/units?nextPageToken=ZAD//w==", 400),
        ("/fleet/v1/status/x?after=-1", 400),
        ("/fleet/v1/status/x.service?after=99999999999999999999", 400),
    ] {
        assert_eq!(status(&world, Request::get(path)).await, expected, "{path}");
    }
    for method in ["BREW", "OPTIONS", "TRACE", "PROPFIND"] {
        let request = Request::builder().method(method);
        assert_eq!(
            status(&world, request.uri("/fleet/v1/units")).await,
            405,
            "{method}"
        );
    }
}

#[tokio::test]
async fn json_is_json_however_its_type_is_spelled() {
    let world = World::start().await;
    for (kind, expected) in [
        ("application/json", 409),
        ("application/json; charset=utf-8", 409),
        ("Application/JSON;charset=\"UTF-8\"", 409),
        ("application/json ;", 409),
        ("application/jsonp", 415),
        ("text/json", 415),
        ("", 415),
    ] {
        let request = Request::put("/fleet/v1/units/x.service").header("Content-Type", kind);
        let answer = world
            .ask(request.body(Body::from("{}")).expect("a request"))
            .await;
        assert_shape(&answer, &format!("PUT {kind}"));
        assert_eq!(answer.status.as_u16(), expected, "{kind}");
    }
}

#[rustfmt::skip] // one a line says no more
fn paths() -> impl Strategy<Value = String> {
    let resource = prop::sample::select(vec!["units", "state", "machines", "status", "discovery", "%75nits", ".", ""]);
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "x.service", "t@.service", "t@1.service", "x.blah", "", "..", "%2e%2e", "%2F", "%00", "%ff", "%", "%zz", "*",
        ]).prop_map(str::to_owned),
        1 => "[!-\"$->@-~]{0,8}".prop_map(String::from),
    ];
    let query = prop_oneof![
        Just(String::new()),
        "[?](nextPageToken|machineID|unitName|content|alt)=[A-Za-z0-9%=&/+_-]{0,9}",
    ];
    let prefix = prop::sample::select(vec!["/fleet/v1/", "/v1-alpha/", "/"]);
    let pieces = prop::collection::vec(piece.prop_map(|piece| format!("/{piece}")), 0..3);
    (prefix, resource, pieces, query)
        .prop_map(|(prefix, resource, pieces, query)| format!("{prefix}{resource}{}{query}", pieces.concat()))
}

#[rustfmt::skip] // one a line says no more
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "null", "true", "-1e999", r#""options":"#, r#""content":"#, r#""desiredState":"launched""#,
        r#""op":"add""#, r#""path":"/x/metadata/k""#, r#""\ud800""#, r#"{"content":"W1NlcnZpY2Vd"}"#, r#"{"desiredState":"x"}"#,
        r#"{"desiredState":"launched","options":[{"section":"X-Fleet","name":"Global","value":"true"}]}"#,
        r#"[{"op":"remove","path":"/631e82f9bbd25efb88aad49e6c499b79/metadata/k"}]"#,
    ]);
    prop_oneof![
        prop::collection::vec(fragment, 0..8).prop_map(|fragments| fragments.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    // The failing requests are printed. A file of seeds does not belong beside an integration test.
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_gets_an_answer(
        requests in prop::collection::vec(
            (prop::sample::select(vec!["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "BREW"]), paths(), bodies(), any::<bool>()),
            1..32,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let world = World::start().await;
            for (method, path, body, typed) in requests {
                let what = format!("{method} {path} {body:?}");
                let mut request = Request::builder().method(method).uri(path);
                if typed {
                    request = request.header("Content-Type", "application/json");
                }
                // A string that is no URL does not pass the server's own parser.
                let Ok(request) = request.body(Body::from(body)) else { continue };
                assert_shape(&world.ask(request).await, &what);
            }
        });
    }
}
