//! Shows that the API answers every request with a status and a sentence, as fleet 1.0 did, and
//! keeps working.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Lab;

use crate::support::looking::{listed, settled};

const JSON: &str = "Content-Type: application/json\r\n";
const GLOBAL: &str = r#"{"section":"X-Fleet","name":"Global","value":"true"}"#;

/// A request's head up to its headers, its headers, its body, the status, and the error's message.
type Case<'a> = (&'a str, &'a str, &'a str, u16, &'a str);

const READING: &[Case] = &[
    ("GET /nope", "", "", 404, ""),
    ("GET /fleet/v1/", "", "", 404, ""),
    ("GET /fleet/v1/units/", "", "", 404, ""),
    ("GET /fleet/v1/units/a/b", "", "", 404, ""),
    (
        "GET /fleet/v1/units/nosuch.service",
        "",
        "",
        404,
        "unit does not exist",
    ),
    (
        "DELETE /fleet/v1/units/nosuch.service",
        "",
        "",
        404,
        "unit does not exist",
    ),
    (
        "PUT /fleet/v1/machines",
        "",
        "",
        405,
        "only GET and PATCH supported against this resource",
    ),
    (
        "POST /fleet/v1/units",
        "",
        "",
        405,
        "only GET supported against this resource",
    ),
    (
        "POST /fleet/v1/state",
        "",
        "",
        405,
        "only GET supported against this resource",
    ),
    (
        "POST /fleet/v1/units/x.service",
        "",
        "",
        405,
        "only GET, PUT and DELETE supported against this resource",
    ),
    (
        "GET /fleet/v1/machines?nextPageToken=EwBMLg==",
        "",
        "",
        400,
        "token limit must be 100",
    ),
    (
        "GET /fleet/v1/machines?nextPageToken=xx",
        "",
        "",
        400,
        "illegal base64 data at input byte 0",
    ),
    (
        "GET /fleet/v1/units?nextPageToken=ZAAAAA==",
        "",
        "",
        400,
        "token page must be greater than zero",
    ),
    (
        "GET /fleet/v1/units?nextPageToken=a&nextPageToken=b",
        "",
        "",
        400,
        "too many values for page token",
    ),
    // Paths that lead out of a directory are neither names of units nor keys.
    (
        "GET /fleet/v1/units/..%2F..%2Fetc%2Fpasswd",
        "",
        "",
        404,
        "unit does not exist",
    ),
    (
        "GET /fleet/v1/units/..%2Fleader",
        "",
        "",
        404,
        "unit does not exist",
    ),
    (
        "GET /fleet/v1/units/%2e%2e",
        "",
        "",
        404,
        "unit does not exist",
    ),
    ("GET /fleet/v1/units/%ff.service", "", "", 400, ""),
    (
        "DELETE /fleet/v1/units/..%2Fcluster",
        "",
        "",
        404,
        "unit does not exist",
    ),
];

const WRITING: &[Case] = &[
    (
        "PUT /fleet/v1/units/x.service",
        "",
        "",
        415,
        "expected 1 Content-Type, got 0",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "{}",
        415,
        "expected 1 Content-Type, got 2",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        "Content-Type: text/plain\r\n",
        "{}",
        415,
        "only acceptable Content-Type is application/json",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        JSON,
        "garbage",
        400,
        "unable to decode body: ",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        JSON,
        "\"text\"",
        400,
        "unable to decode body: ",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        JSON,
        "\u{0}",
        400,
        "unable to decode body: ",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        JSON,
        "{}",
        409,
        "unit does not exist and options field empty",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        JSON,
        r#"{"name":"y.service"}"#,
        400,
        r#"name in URL "x.service" differs from unit name in request body "y.service""#,
    ),
    (
        "PUT /fleet/v1/units/x.blah",
        JSON,
        "{}",
        400,
        r#"invalid unit type: "blah""#,
    ),
    (
        "PUT /fleet/v1/units/..%2F..%2Fx.service",
        JSON,
        "{}",
        400,
        "invalid character '/' in unit name",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        JSON,
        r#"{"desiredState":"launched"}"#,
        409,
        "unit does not exist and options field empty",
    ),
    (
        "PUT /fleet/v1/units/x.service",
        JSON,
        r#"{"desiredState":"bogus","options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}"#,
        400,
        r#"invalid desiredState "bogus": expect inactive, loaded, or launched"#,
    ),
    (
        "PATCH /fleet/v1/machines",
        JSON,
        r#"[{"op":"noop","path":"/x/metadata/foo","value":{"value":"v"}}]"#,
        400,
        "invalid op: expect add, remove, or replace",
    ),
    (
        "PATCH /fleet/v1/machines",
        JSON,
        r#"[{"op":"add","path":"/x/foo","value":{"value":"v"}}]"#,
        400,
        "machine metadata path invalid",
    ),
    (
        "PATCH /fleet/v1/machines",
        JSON,
        r#"[{"op":"add","path":"/x/metadata/foo","value":{"value":""}}]"#,
        400,
        "invalid value: add and replace require a value",
    ),
    (
        "PATCH /fleet/v1/machines",
        JSON,
        r#"[{"op":"add","path":"/..%2Fleader/metadata/foo","value":"v"}]"#,
        400,
        "is not 32 lower-case hexadecimal digits",
    ),
    (
        "PATCH /fleet/v1/machines",
        JSON,
        "{}",
        400,
        "unable to decode body: ",
    ),
];

#[test]
fn bad_requests_are_answered_with_a_sentence_and_change_nothing() {
    Lab::builder().etcd(1).test(|lab| {
        listed(lab)?;
        let pid = lab.host(1).main_pid("fleet.service")?;
        let before = settled(lab)?;
        for case in READING.iter().chain(WRITING) {
            refuses(lab, case).with_context(|| format!("{case:?}"))?;
        }
        refused_with_options(lab)?;
        too_large(lab).context("a body of 4 MB")?;
        no_http(lab).context("what is no HTTP")?;
        ensure!(settled(lab)? == before, "a refusal wrote to the registry");
        ensure!(
            lab.host(1).main_pid("fleet.service")? == pid,
            "fleetd ended meanwhile"
        );
        Ok(())
    });
}

fn refuses(lab: &Lab, (request, headers, body, status, message): &Case) -> Result<()> {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let text = format!(
        "{request} HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\n{headers}{length}\r\n{body}"
    );
    let answer = send(lab, text.as_bytes())?;
    ensure!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| answer.clone())?;
    let head = head.to_lowercase();
    ensure!(
        head.contains("\r\nserver: fleetd/v")
            && head.contains("\r\ncontent-type: application/json"),
        "{answer}"
    );
    let body: serde_json::Value = serde_json::from_str(body).with_context(|| answer.clone())?;
    ensure!(body["error"]["code"] == *status, "{answer}");
    let said = body["error"]["message"].as_str().unwrap_or_default();
    ensure!(said.contains(message), "{answer}");
    Ok(())
}

fn refused_with_options(lab: &Lab) -> Result<()> {
    let option = |section: &str, name: &str, value: &str| {
        format!(r#"{{"section":"{section}","name":"{name}","value":"{value}"}}"#)
    };
    let runs = option("Service", "ExecStart", "/bin/sleep 1000");
    let put = |name: &str, options: &[&str], status, message: &str| {
        let body = format!(
            r#"{{"desiredState":"launched","options":[{}]}}"#,
            options.join(",")
        );
        let request = format!("PUT /fleet/v1/units/{name}");
        refuses(lab, &(&request, JSON, &body, status, message)).with_context(|| body.clone())
    };
    let id = option("X-Fleet", "MachineID", "abc");
    put(
        "x.service",
        &[&runs, GLOBAL, &id],
        400,
        "MachineID cannot be used with Global",
    )?;
    put(
        "t@.service",
        &[&runs, GLOBAL],
        400,
        r#"cannot activate template "t@.service""#,
    )?;
    put("x.service", &[&runs], 409, "unit x.service is not global")?;
    for (name, value, text) in [
        (
            "MachineMetadata",
            "role:web",
            r#"x.service line 6: MachineMetadata "role:web": write key=value"#,
        ),
        (
            "MachineMetadata",
            "",
            r#"x.service line 6: MachineMetadata "": it has no value"#,
        ),
        (
            "MachineMetadta",
            "role=web",
            "did you mean MachineMetadata?",
        ),
        (
            "Conflicts",
            "web[",
            r#"x.service line 6: Conflicts "web[": "#,
        ),
        (
            "Colour",
            "blue",
            r#"unrecognized requirement in [X-Fleet] section: "Colour""#,
        ),
    ] {
        put(
            "x.service",
            &[&runs, GLOBAL, &option("X-Fleet", name, value)],
            400,
            text,
        )?;
    }
    // A line hidden in a value would be an option that was never validated.
    let smuggled = option(
        "Service",
        "ExecStart",
        r"/bin/true\n[X-Fleet]\nMachineID=abc",
    );
    put("x.service", &[&smuggled, GLOBAL], 400, "")
}

fn too_large(lab: &Lab) -> Result<()> {
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(4 << 20));
    refuses(
        lab,
        &("PUT /fleet/v1/units/x.service", JSON, &body, 413, ""),
    )
}

fn no_http(lab: &Lab) -> Result<()> {
    let answer = send(lab, b"\x16\x03\x01\x02\x00\x01 this is no HTTP\r\n\r\n")?;
    ensure!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let answer = send(lab, long.as_bytes())?;
    ensure!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    Ok(())
}

/// Sends the bytes unchanged, and returns all that fleetd sends until it closes the connection.
fn send(lab: &Lab, request: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(lab.host(1).path("/run/fleet.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    // fleetd may answer and close the connection before all of a large request was sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
