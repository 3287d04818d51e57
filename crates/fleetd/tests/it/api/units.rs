//! Units are sent as options, like fleet 1.0's clients do, or as bytes. Readers get both.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetd::registry::UNITS_MAX;
use serde_json::{Value, json};

use super::world::{Answer, World};

const UNIT: &str = "/fleet/v1/units/a.service";

fn options(command: &str) -> Value {
    json!([
        { "section": "Service", "name": "ExecStart", "value": command },
        { "section": "X-Fleet", "name": "Global", "value": "true" },
    ])
}

fn file(command: &str) -> String {
    format!("# mine\n[Service]\nExecStart={command}\n\n[X-Fleet]\nGlobal=true\n")
}

async fn answer(world: &World, path: &str, unit: &Value) -> Answer {
    let request = Request::put(path).header("Content-Type", "application/json");
    let request = request.body(Body::from(unit.to_string()));
    world.ask(request.expect("a request")).await
}

async fn put(world: &World, path: &str, unit: &Value) -> u16 {
    answer(world, path, unit).await.status.as_u16()
}

async fn get(world: &World, path: &str) -> Value {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    serde_json::from_str(&world.ask(request).await.body).expect("JSON")
}

async fn content(world: &World) -> String {
    let unit = get(world, &format!("{UNIT}?content=true")).await;
    let bytes = STANDARD.decode(unit["content"].as_str().expect("content"));
    String::from_utf8(bytes.expect("base64")).expect("text")
}

#[tokio::test]
async fn client_that_knows_only_options_writes_and_reads_a_unit() {
    let world = World::start().await;
    let unit = json!({ "desiredState": "launched", "options": options("/bin/a") });
    assert_eq!(put(&world, UNIT, &unit).await, 201);
    let expected =
        json!({ "name": "a.service", "desiredState": "launched", "options": options("/bin/a") });
    assert_eq!(get(&world, UNIT).await, expected);
    assert_eq!(
        content(&world).await,
        "[Service]\nExecStart=/bin/a\n\n[X-Fleet]\nGlobal=true\n"
    );
    let unit = json!({ "desiredState": "launched", "options": options("/bin/b") });
    assert_eq!(put(&world, UNIT, &unit).await, 204);
    assert_eq!(get(&world, UNIT).await["options"], options("/bin/b"));
}

#[tokio::test]
async fn bytes_are_kept_and_win_over_options() {
    let world = World::start().await;
    let bytes = STANDARD.encode(file("/bin/bytes"));
    let unit = json!({
        "desiredState": "launched", "content": bytes, "options": options("/bin/options"),
    });
    assert_eq!(put(&world, UNIT, &unit).await, 201);
    assert_eq!(content(&world).await, file("/bin/bytes"));
    assert_eq!(get(&world, UNIT).await["options"], options("/bin/bytes"));
    assert_eq!(get(&world, UNIT).await.get("content"), None);
}

#[tokio::test]
async fn null_counts_as_missing() {
    let world = World::start().await;
    let unit = json!({
        "name": null, "desiredState": "inactive", "currentState": null, "machineID": null, "content": null,
        "options": options("/bin/a"),
    });
    assert_eq!(put(&world, UNIT, &unit).await, 201);
    let change = json!({ "desiredState": "launched", "options": null });
    assert_eq!(put(&world, UNIT, &change).await, 204);
    assert_eq!(get(&world, UNIT).await["desiredState"], "launched");
}

#[tokio::test]
async fn misspelled_requirement_is_refused_as_bytes_and_options() {
    let world = World::start().await;
    let text = "a.service line 4: MachineMetadata \"role:web\": write key=value, or quote each of several; \
                nothing was submitted";
    let bytes = "[Service]\nExecStart=/a\n[X-Fleet]\nMachineMetadata=role:web\n";
    let as_bytes = json!({ "content": STANDARD.encode(bytes), "desiredState": "inactive" });
    let mut lines = options("/a");
    lines[1] = json!({ "section": "X-Fleet", "name": "MachineMetadata", "value": "role:web" });
    let as_options = json!({ "options": lines, "desiredState": "inactive" });
    for (unit, line) in [(as_bytes, 4), (as_options, 5)] {
        let refused = answer(&world, UNIT, &unit).await;
        assert_eq!(refused.status.as_u16(), 400);
        let body: Value = serde_json::from_str(&refused.body).expect("JSON");
        let text = text.replace("line 4", &format!("line {line}"));
        assert_eq!(body["error"]["message"], text);
    }
    let missing = Request::get(UNIT).body(Body::empty()).expect("a request");
    assert_eq!(world.ask(missing).await.status.as_u16(), 404);
}

#[tokio::test]
async fn full_registry_takes_changes_but_no_new_units() {
    let world = World::start().await;
    let unit = json!({ "desiredState": "inactive", "options": options("/bin/a") });
    let more = "/fleet/v1/units/more.service";
    let destroy = async |path: &str| {
        let request = Request::delete(path).body(Body::empty());
        world.ask(request.expect("a request")).await.status
    };
    assert_eq!(put(&world, more, &unit).await, 201);
    assert_eq!(destroy(more).await, 204);
    for number in 0..UNITS_MAX {
        let path = format!("/fleet/v1/units/u{number}.service");
        assert_eq!(put(&world, &path, &unit).await, 201);
    }
    let refused = answer(&world, more, &unit).await;
    assert_eq!(refused.status, 409);
    let text = &refused.body;
    assert!(text.contains("2000 units, the maximum"), "{text}");
    let changed = json!({ "desiredState": "inactive", "options": options("/bin/b") });
    assert_eq!(
        put(&world, "/fleet/v1/units/u0.service", &changed).await,
        204
    );
    assert_eq!(destroy("/fleet/v1/units/u1.service").await, 204);
    assert_eq!(put(&world, more, &unit).await, 201);
}

#[tokio::test]
async fn pages_hold_a_hundred_units_and_lead_to_the_next() {
    let world = World::start().await;
    let unit = json!({ "desiredState": "inactive", "options": options("/bin/a") });
    for number in 0..250 {
        let path = format!("/fleet/v1/units/u{number:03}.service");
        assert_eq!(put(&world, &path, &unit).await, 201);
    }
    let (mut path, mut sizes, mut names) = ("/fleet/v1/units".to_owned(), vec![], vec![]);
    loop {
        let page = get(&world, &path).await;
        let units = page["units"].as_array().expect("units");
        sizes.push(units.len());
        names.extend(units.iter().map(|unit| unit["name"].to_string()));
        match page["nextPageToken"].as_str() {
            Some(token) => path = format!("/fleet/v1/units?nextPageToken={token}"),
            None => break,
        }
    }
    assert_eq!(sizes, [100, 100, 50]);
    assert!(names.is_sorted() && names.len() == 250);
}
