//! Request bodies: the limits on their size, their time and their type.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use fleet_core::record::CONTENT_MAX;
use futures_util::stream::StreamExt as _;
use serde::de::DeserializeOwned;

use super::error::{ApiError, Result};

/// The media type of all requests and responses.
pub(super) const JSON: &str = "application/json";

/// The largest body: a unit file in base64, and the rest of its JSON.
pub(super) const MAX: usize = CONTENT_MAX * 2;

/// The time that a client has to send a body. fleetctl gives up after three seconds in total.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Reads the whole body before the request is handled, so that a slow client does not look like a
/// slow registry. A body whose declared length is too large is refused unread.
pub(super) async fn receive(request: Request) -> Result<Request> {
    let (parts, body) = request.into_parts();
    let too_large = || {
        let text = format!("request body is too large (max {MAX} bytes)");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let announced = parts.headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX as u64) {
        return Err(too_large());
    }
    let whole = Request::from_parts(parts.clone(), body);
    match tokio::time::timeout(ARRIVAL, Bytes::from_request(whole, &())).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::bad(error.body_text())),
        Err(_) => {
            let text = format!("the request body did not arrive within {ARRIVAL:?}");
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

/// Reads the beginning of a body, and keeps nothing.
pub(super) async fn pass_over(request: Request) {
    let mut pieces = request.into_body().into_data_stream();
    let mut left = MAX;
    let all = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                break;
            }
        }
    };
    // The answer is the same if the time runs out.
    let _ = tokio::time::timeout(ARRIVAL, all).await;
}

/// Reads a JSON body.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad(format!("unable to decode body: {error}")))
}

/// The members that requests of fleet 1.0 have. Its decoder accepts them in any case.
const MEMBERS: [&str; 10] = [
    "currentState",
    "desiredState",
    "machineID",
    "name",
    "op",
    "options",
    "path",
    "section",
    "unit",
    "value",
];

/// Reads a JSON body of fleet 1.0, whose members may have any case. An error is about the body as
/// it was sent, so it names the right place.
pub(super) fn decode_any_case<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let read = || {
        let mut body: serde_json::Value = decode(bytes)?;
        set_case(&mut body);
        serde_json::from_value(body)
            .map_err(|error| ApiError::bad(format!("unable to decode body: {error}")))
    };
    read().map_err(|error| decode::<T>(bytes).err().unwrap_or(error))
}

fn set_case(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(set_case),
        serde_json::Value::Object(members) => {
            for member in MEMBERS {
                let other = |name: &&String| *name != member && name.eq_ignore_ascii_case(member);
                let found = members.keys().find(other).cloned();
                if let Some(value) = found.and_then(|name| members.remove(&name)) {
                    // A member written as documented wins.
                    members.entry(member).or_insert(value);
                }
            }
            members.values_mut().for_each(set_case);
        }
        _ => {}
    }
}

/// Requires exactly one `Content-Type: application/json`, in fleet 1.0's words.
pub(super) fn require_json(headers: &HeaderMap) -> Result<()> {
    let refuse = |message| Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    let types: Vec<_> = headers.get_all(CONTENT_TYPE).iter().collect();
    let [one] = types[..] else {
        return refuse(format!("expected 1 Content-Type, got {}", types.len()));
    };
    let essence = one.to_str().unwrap_or("").split(';').next().unwrap_or("");
    if essence.trim().eq_ignore_ascii_case(JSON) {
        Ok(())
    } else {
        refuse(format!("only acceptable Content-Type is {JSON}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_in_any_case() {
        let body =
            br#"[{"Op":"add","PATH":"/x/metadata/a","Value":{"VALUE":"b"},"value":{"value":"c"}}]"#;
        let read: serde_json::Value = decode_any_case(body).expect("JSON");
        let expected = r#"[{"op":"add","path":"/x/metadata/a","value":{"value":"c"}}]"#;
        assert_eq!(read.to_string(), expected);
    }
}
