//! Request bodies: how large, how slow and of what kind they may be.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use fleet_core::record::CONTENT_MAX;
use serde::de::DeserializeOwned;

use super::error::{ApiError, Result};

/// The media type of everything here.
pub(super) const JSON: &str = "application/json";

/// The largest body: a unit file in base64, and the rest of its JSON.
pub(super) const MAX: usize = CONTENT_MAX * 2;

/// How long a client may take to send one. fleetctl gives up after three seconds for all of it.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Reads the whole body before the request is handled, so that a slow client does not look like a
/// slow registry. A body that announces it is too large is refused before any of it is read.
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

/// Reads a JSON body.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad(format!("unable to decode body: {error}")))
}

/// Insists on one `Content-Type: application/json`, in fleet 1.0's words.
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
