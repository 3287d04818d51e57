//! The border of each limit: the largest value is accepted, and the next one is refused with the
//! limit in the answer.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::answers::assert_shape;
use super::world::World;

const MACHINE: &str = "631e82f9bbd25efb88aad49e6c499b79";

async fn ask(world: &World, method: &str, path: &str, body: String) -> (u16, String) {
    let request = Request::builder().method(method);
    let request = request.uri(format!("/fleet/v1/{path}"));
    let request = request.header("Content-Type", "application/json");
    let request = request.body(Body::from(body)).expect("a request");
    let answer = world.ask(request).await;
    assert_shape(&answer, method);
    (answer.status.as_u16(), answer.body)
}

fn refused((status, text): (u16, String), expected: u16, why: &str) {
    assert_eq!(status, expected, "{text}");
    assert!(text.contains(why), "{text}");
}

/// Returns a unit with a file of that many bytes.
fn unit(bytes: usize) -> String {
    let begin = "[Service]\nExecStart=/bin/true\n#";
    let file = format!("{begin}{}", "x".repeat(bytes - begin.len()));
    json!({ "desiredState": "inactive", "content": BASE64.encode(file) }).to_string()
}

#[tokio::test]
async fn a_unit_file_has_512_kib() {
    let world = World::start().await;
    let longest = ask(&world, "PUT", "units/a.service", unit(512 * 1024)).await;
    assert_eq!(longest.0, 201, "{}", longest.1);
    let longer = ask(&world, "PUT", "units/b.service", unit(512 * 1024 + 1)).await;
    refused(longer, 413, "unit file is 524289 bytes long (max 524288)");
    // Two such revisions still fit into a record.
    let other = unit(512 * 1024 - 1);
    let updated = ask(&world, "PUT", "units/a.service", other).await;
    assert_eq!(updated.0, 204, "{}", updated.1);
}

#[tokio::test]
async fn a_body_has_one_mib() {
    let world = World::start().await;
    let mut body = unit(1000);
    body += &" ".repeat((1 << 20) - body.len());
    let longest = ask(&world, "PUT", "units/a.service", body.clone()).await;
    assert_eq!(longest.0, 201, "{}", longest.1);
    let longer = ask(&world, "PUT", "units/a.service", body + " ").await;
    refused(longer, 413, "request body is too large (max 1048576 bytes)");
}

#[tokio::test]
async fn a_name_has_255_bytes() {
    let world = World::start().await;
    let path = |bytes: usize| format!("units/{}.service", "n".repeat(bytes - ".service".len()));
    let longest = ask(&world, "PUT", &path(255), unit(100)).await;
    assert_eq!(longest.0, 201, "{}", longest.1);
    let longer = ask(&world, "PUT", &path(256), unit(100)).await;
    refused(longer, 400, "unit name is 256 bytes long (max 255)");
}

/// Sets these keys of one machine's metadata.
async fn set(world: &World, keys: std::ops::Range<usize>) -> (u16, String) {
    let operations: Vec<_> = keys
        .map(|key| json!({ "op": "add", "path": format!("/{MACHINE}/metadata/k{key}"), "value": "v" }))
        .collect();
    ask(world, "PATCH", "machines", json!(operations).to_string()).await
}

#[tokio::test]
async fn metadata_of_a_machine_that_never_joined_is_refused() {
    let world = World::start().await;
    let last = if MACHINE.ends_with('0') { '1' } else { '0' };
    let path = format!("/{}{last}/metadata/k", &MACHINE[..31]);
    let mistyped = json!([{ "op": "add", "path": path, "value": "v" }]).to_string();
    refused(
        ask(&world, "PATCH", "machines", mistyped).await,
        404,
        &format!("is not known; did you mean {MACHINE}?"),
    );
}

#[tokio::test]
async fn a_request_has_100_operations_and_a_machine_128_keys() {
    let world = World::start().await;
    refused(
        set(&world, 0..101).await,
        400,
        "101 metadata operations in one request (max 100)",
    );
    assert_eq!(set(&world, 0..100).await.0, 204);
    assert_eq!(set(&world, 100..128).await.0, 204);
    refused(
        set(&world, 128..129).await,
        409,
        "would have more than 128 keys of metadata",
    );
    assert_eq!(set(&world, 0..100).await.0, 204, "those that are there");
}
