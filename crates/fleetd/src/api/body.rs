//! Request bodies.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::error::{ApiError, Result};

/// Reads a JSON body.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad(format!("unable to decode body: {error}")))
}

/// Insists on one `Content-Type: application/json`, in the original's words.
pub(super) fn require_json(headers: &HeaderMap) -> Result<()> {
    let refuse = |message| Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    let types: Vec<_> = headers.get_all(CONTENT_TYPE).iter().collect();
    let [one] = types[..] else {
        return refuse(format!("expected 1 Content-Type, got {}", types.len()));
    };
    let essence = one.to_str().unwrap_or("").split(';').next().unwrap_or("");
    if essence.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        refuse("only acceptable Content-Type is application/json".to_owned())
    }
}
