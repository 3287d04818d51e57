//! `POST machines/ID`: sets what may start on a machine.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use fleet_core::api::SchedulingBody;
use fleet_core::machine::MachineId;

use super::error::{ApiError, Result};
use super::{Api, BY, body};

pub(super) async fn post(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<StatusCode> {
    body::require_json(&headers)?;
    let SchedulingBody { scheduling } = body::decode(&bytes)?;
    let machine = MachineId::parse(&id).map_err(|error| ApiError::bad(error.to_string()))?;
    let before = api.registry.set_scheduling(&machine, scheduling).await?;
    tracing::info!(
        machine = %machine,
        by = BY,
        "machine {machine} ordered over {BY} to be {} (it was {})",
        scheduling.as_str(),
        before.as_str()
    );
    Ok(StatusCode::NO_CONTENT)
}
