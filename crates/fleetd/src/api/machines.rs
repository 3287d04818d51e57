//! `machines`: the live machines and their metadata.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use fleet_core::api::{Machine, MachinePage, MetadataOp, MetadataValue};
use fleet_core::machine::{MachineId, Scheduling, too_long};

use super::error::{ApiError, Result};
use super::page::page;
use super::units::{WARNING, shown};
use super::view::View;
use super::{Api, BY, Query, body};

/// The largest number of operations in one request. Each machine is a write of one commit, and a
/// commit has at most 128.
const OPERATIONS_MAX: usize = 100;

pub(super) async fn list(
    State(api): State<Api>,
    query: Query,
) -> Result<(HeaderMap, Json<MachinePage>)> {
    let view = View::machines(&**api.registry.store()).await?;
    let warnings = warnings(&view);
    let machines = view
        .machines
        .into_iter()
        .map(|(id, machine)| Machine {
            id: id.to_string(),
            metadata: machine.metadata,
            primary_ip: machine.primary_ip,
            scheduling: match machine.scheduling {
                Scheduling::Normal => String::new(),
                scheduling => scheduling.as_str().to_owned(),
            },
            version: if query.details {
                machine.version
            } else {
                String::new()
            },
        })
        .collect();
    let (machines, next_page_token) = page(
        machines,
        &query.page_tokens,
        query.limit.unwrap_or(api.page_limit),
    )?;
    let page = MachinePage {
        machines,
        next_page_token,
    };
    Ok((warnings, Json(page)))
}

/// The largest number of unlisted machines that warnings name. After a disk was cloned, the first
/// few are enough.
const TOLD: usize = 3;

/// Returns warnings about the machines that are not listed because of their ids.
fn warnings(view: &View) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (id, twin) in view.twins.iter().take(TOLD) {
        let listed = view.machines.get(id);
        let text = format!(
            "the machine at {} is not listed: its id {id} is also that of the machine at {}; fleetctl status says what to do",
            twin.primary_ip,
            listed.map_or("", |listed| &listed.primary_ip)
        );
        // The text may contain words from the registry.
        if let Ok(text) = HeaderValue::from_str(&shown(&text)) {
            headers.append(WARNING, text);
        }
    }
    headers
}

pub(super) async fn patch(State(api): State<Api>, bytes: Bytes) -> Result<Response> {
    let operations: Vec<MetadataOp> = body::decode_any_case(&bytes)?;
    if operations.len() > OPERATIONS_MAX {
        return Err(ApiError::bad(format!(
            "{} metadata operations in one request (max {OPERATIONS_MAX}); send several requests",
            operations.len()
        )));
    }
    let changes = operations.iter().map(change).collect::<Result<Vec<_>>>()?;
    only_one_value(&changes)?;
    let machines = changes.iter().map(|(machine, ..)| machine);
    api.registry.must_know(machines).await?;
    api.registry.set_metadata(&changes).await?;
    for (machine, key, value) in &changes {
        let value = value.as_deref().unwrap_or("nothing");
        tracing::info!(machine = %machine, by = BY, "metadata {key} of {machine} set over {BY} to {value}");
    }
    // fleet 1.0 sends this header too.
    let kind = [(CONTENT_TYPE, body::JSON)];
    Ok((StatusCode::NO_CONTENT, kind).into_response())
}

type MetadataChange = (MachineId, String, Option<String>);

/// Returns the machine, the key and the new value of one operation. The value is `None` if the key
/// is removed.
fn change(operation: &MetadataOp) -> Result<MetadataChange> {
    let value = operation.value.as_ref().map_or("", MetadataValue::as_str);
    let value = match operation.op.as_str() {
        "add" | "replace" => Some(value.to_owned()),
        "remove" => None,
        _ => return Err(ApiError::bad("invalid op: expect add, remove, or replace")),
    };
    let invalid = || ApiError::bad("machine metadata path invalid");
    let parts: Vec<&str> = operation.path.split('/').collect();
    let ["", machine, "metadata", key] = parts[..] else {
        return Err(invalid());
    };
    let key = unescaped(key).ok_or_else(invalid)?;
    if value.as_ref().is_some_and(String::is_empty) {
        let text = "invalid value: add and replace require a value";
        return Err(ApiError::bad(text));
    }
    for (what, text) in [("key", &*key), ("value", value.as_deref().unwrap_or("x"))] {
        // `MachineMetadata=` could not name it, or a listing could not show it.
        if text.is_empty() || text.contains(['=', ',', '"']) || text.contains(char::is_control) {
            let text =
                format!("metadata {what} {text:?} must not be empty or contain any of = , \"");
            return Err(ApiError::bad(text));
        }
    }
    if let Some(text) = too_long(&key, value.as_deref().unwrap_or("")) {
        return Err(ApiError::bad(text));
    }
    let machine = MachineId::parse(machine).map_err(|error| ApiError::bad(error.to_string()))?;
    Ok((machine, key, value))
}

/// Reads a part of a JSON pointer, in which `~1` is a slash and `~0` a tilde. `None` if it is
/// malformed.
fn unescaped(part: &str) -> Option<String> {
    let mut text = String::with_capacity(part.len());
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

/// Refuses a request that sets a key of a machine to two values, because one of them is a mistake.
fn only_one_value(changes: &[MetadataChange]) -> Result<()> {
    let mut values = BTreeMap::new();
    for (machine, key, value) in changes {
        let Some(value) = value else { continue };
        let before = values.insert((machine, key), value);
        if let Some(before) = before.filter(|before| *before != value) {
            let text =
                format!("metadata {key} of {machine} is set twice: to {before:?} and to {value:?}");
            return Err(ApiError::bad(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> std::result::Result<(String, Option<String>), String> {
        let operation: MetadataOp = serde_json::from_str(json).expect("an operation");
        change(&operation)
            .map(|(_, key, value)| (key, value))
            .map_err(|error| error.message)
    }

    #[test]
    fn both_spellings_of_a_value_work() {
        let id = "a".repeat(32);
        let expected = Ok(("az".to_owned(), Some("1".to_owned())));
        let object =
            format!(r#"{{"op":"add","path":"/{id}/metadata/az","value":{{"value":"1"}}}}"#);
        assert_eq!(read(&object), expected);
        let bare = format!(r#"{{"op":"replace","path":"/{id}/metadata/az","value":"1"}}"#);
        assert_eq!(read(&bare), expected);
        let remove = format!(r#"{{"op":"remove","path":"/{id}/metadata/az"}}"#);
        assert_eq!(read(&remove), Ok(("az".to_owned(), None)));
    }

    #[test]
    fn a_key_is_read_as_a_json_pointer() {
        let key = |key: &str| {
            let id = "a".repeat(32);
            read(&format!(
                r#"{{"op":"remove","path":"/{id}/metadata/{key}"}}"#
            ))
            .map(|(key, _)| key)
        };
        assert_eq!(
            key("example.com~1role~0x"),
            Ok("example.com/role~x".to_owned())
        );
        for bad in ["a/b", "a~", "a~2"] {
            assert_eq!(
                key(bad),
                Err("machine metadata path invalid".to_owned()),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_key_that_is_set_twice_is_refused() {
        let id = MachineId::parse(&"a".repeat(32)).expect("valid");
        let set = |value: &str| (id.clone(), "az".to_owned(), Some(value.to_owned()));
        let removed = (id.clone(), "az".to_owned(), None);
        assert!(only_one_value(&[set("1"), removed, set("1")]).is_ok());
        let refused = only_one_value(&[set("1"), set("2")]).expect_err("two values");
        assert!(
            refused
                .message
                .ends_with("is set twice: to \"1\" and to \"2\"")
        );
    }

    #[test]
    fn keys_and_values_are_taken_up_to_their_bounds() {
        let id = "a".repeat(32);
        let operation = |key: usize, value: usize| {
            let (key, value) = ("k".repeat(key), "v".repeat(value));
            read(&format!(
                r#"{{"op":"add","path":"/{id}/metadata/{key}","value":"{value}"}}"#
            ))
        };
        operation(128, 1024).expect("the longest");
        let told = |key, value| operation(key, value).expect_err("too long");
        assert_eq!(told(129, 1), "metadata key is 129 bytes long (max 128)");
        assert_eq!(
            told(1, 1025),
            "metadata value is 1025 bytes long (max 1024)"
        );
    }

    #[test]
    fn bad_operations_are_refused_in_the_words_of_fleet_1() {
        for (operation, message) in [
            (
                r#"{"op":"noop","path":"/x/metadata/foo","value":{"value":"v"}}"#,
                "invalid op: expect add, remove, or replace",
            ),
            (
                r#"{"op":"add","path":"/x/foo","value":{"value":"v"}}"#,
                "machine metadata path invalid",
            ),
            (
                r#"{"op":"add","path":"/x/metadata/foo","value":{"value":""}}"#,
                "invalid value: add and replace require a value",
            ),
            (
                r#"{"op":"add","path":"/../metadata/foo","value":"v"}"#,
                "machine id \"..\" is not 32 lower-case hexadecimal digits",
            ),
        ] {
            assert_eq!(read(operation), Err(message.to_owned()));
        }
    }
}
