//! `registry`: whether this machine follows the registry, and accepting it. An addition to fleet
//! 1.0.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use fleet_core::api::{AcceptBody, RegistryStanding};
use fleet_core::trust::{Footing, Trust};

use super::error::{ApiError, Result};
use super::{Api, BY, body};
use crate::registry::{identity, random_id};

pub(super) async fn get(State(api): State<Api>) -> Result<Json<RegistryStanding>> {
    standing(&api).await.map(Json)
}

/// Accepts the registry as it is, for every machine of this machine's cluster.
pub(super) async fn accept(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<RegistryStanding>> {
    body::require_json(&headers)?;
    let AcceptBody { cluster } = body::decode(&bytes)?;
    let record = api.registry.accept(&cluster, BY, &random_id()).await?;
    tracing::warn!(
        by = BY,
        "the registry is accepted over {BY} as it is, as cluster {}, for every machine of cluster {}",
        record.cluster,
        record.from
    );
    standing(&api).await.map(Json)
}

async fn standing(api: &Api) -> Result<RegistryStanding> {
    let identity = identity(&**api.registry.store()).await?;
    let trust: Trust = api.registry.trust();
    let (state, reason) = match &trust.footing {
        Footing::Unheard => ("unknown", String::new()),
        Footing::New => ("new", String::new()),
        Footing::Followed => ("followed", String::new()),
        Footing::Held(held) => ("held", held.reason.clone()),
    };
    let held = trust.held().cloned().unwrap_or_default();
    let names =
        |names: Vec<fleet_core::unit::UnitName>| names.iter().map(ToString::to_string).collect();
    Ok(RegistryStanding {
        registry_revision: identity.revision,
        state: state.to_owned(),
        reason,
        belongs_to: trust.belongs_to().unwrap_or_default().to_owned(),
        cluster: identity.cluster.id().unwrap_or_default().to_owned(),
        stops: names(held.stops),
        starts: names(held.starts),
        changes: names(held.changes),
    })
}

/// Returns the warning for every reader while this machine holds the registry, because the registry
/// does not show what runs here.
pub(super) fn warning(trust: &Trust) -> Option<String> {
    let held = trust.held()?;
    Some(format!(
        "this machine does not follow what is shown here: {}",
        held.reason
    ))
}

impl From<fleet_core::trust::NotAcceptable> for ApiError {
    fn from(error: fleet_core::trust::NotAcceptable) -> Self {
        Self::conflict(error.to_string())
    }
}
