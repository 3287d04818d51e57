//! Errors in the form that the API sends.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fleet_core::api::{ErrorBody, ErrorDetail};
use fleet_core::submission::NotLaunchable;

use crate::registry::RegistryError;
use crate::store::StoreError;

/// A status and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

/// The result of every handler.
pub(super) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// Returns an error 400.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Returns an error 409.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// Returns the error as the last line of an answer that has already begun.
    pub(super) fn into_line(self) -> Vec<u8> {
        let mut line = serde_json::to_vec(&self.into_body()).expect("a map with text keys");
        line.push(b'\n');
        line
    }

    fn into_body(self) -> ErrorBody {
        let error = ErrorDetail {
            code: self.status.as_u16(),
            message: self.message,
        };
        ErrorBody { error }
    }

    /// Returns an error 404 for a unit, in fleet 1.0's words.
    pub(super) fn no_unit() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unit does not exist")
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Rejected(_) => StatusCode::INSUFFICIENT_STORAGE,
            // The client did not cause it, and waiting does not help.
            StoreError::Denied(_) => StatusCode::BAD_GATEWAY,
            StoreError::Refused => StatusCode::CONFLICT,
            StoreError::Compacted(_) => {
                let text = "the registry has changed since this listing began, and no longer keeps that revision: list again";
                return Self::new(StatusCode::GONE, text);
            }
            StoreError::Unavailable(_) | StoreError::LeaseLost => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<NotLaunchable> for ApiError {
    fn from(error: NotLaunchable) -> Self {
        match error {
            NotLaunchable::Template(_) => Self::bad(error.to_string()),
            NotLaunchable::NotGlobal(_) => Self::conflict(error.to_string()),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Store(error) => error.into(),
            RegistryError::NotAcceptable(error) => error.into(),
            RegistryError::NotLaunchable(error) => error.into(),
            error @ RegistryError::Held(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            RegistryError::Outdated(error) => {
                Self::new(StatusCode::PRECONDITION_FAILED, error.to_string())
            }
            RegistryError::Order(error) => Self::conflict(error.to_string()),
            error @ (RegistryError::TooManyUnits
            | RegistryError::TooMuchMetadata(_)
            | RegistryError::Metadata(..)) => Self::conflict(error.to_string()),
            error @ RegistryError::NoMachine { .. } => {
                Self::new(StatusCode::NOT_FOUND, error.to_string())
            }
            RegistryError::Record(..) => Self::conflict(format!(
                "{error}; to remove it: fleetctl destroy, then submit it again"
            )),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.into_body())).into_response()
    }
}
