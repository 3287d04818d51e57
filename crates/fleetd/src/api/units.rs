//! `units`: submitting, reading, changing and destroying units.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet_core::api::{Unit, UnitPage};
use fleet_core::keys;
use fleet_core::record::{CONTENT_MAX, Owner, TargetState};
use fleet_core::submission::Submission;
use fleet_core::unit::{Content, Parsed, UnitName, serialize};

use super::error::{ApiError, Result};
use super::page::page;
use super::view::{View, ViewedUnit};
use super::{Api, Query, body};

/// Repeated for each thing that is odd about an accepted file.
const WARNING: HeaderName = HeaderName::from_static("x-fleet-warning");

pub(super) async fn list(State(api): State<Api>, query: Query) -> Result<Json<UnitPage>> {
    let view = View::read(&**api.registry.store(), &[keys::UNITS, keys::REPORTS]).await?;
    let units = view
        .units
        .iter()
        .map(|(name, unit)| show(&view, name, unit, query.content))
        .collect();
    let (units, next_page_token) = page(units, &query.page_tokens, api.page_limit)?;
    Ok(Json(UnitPage {
        next_page_token,
        units,
    }))
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<Unit>> {
    let name = UnitName::parse(&name).map_err(|_| ApiError::no_unit())?;
    let key = keys::unit(&name);
    let view = View::read(&**api.registry.store(), &[&key, keys::REPORTS]).await?;
    if let Some(damaged) = view.damaged.iter().find(|damaged| damaged.subject == key) {
        let text = format!("unit {name} cannot be read: {}", damaged.text);
        return Err(ApiError::conflict(text));
    }
    let unit = view.units.get(&name).ok_or_else(ApiError::no_unit)?;
    Ok(Json(show(&view, &name, unit, query.content)))
}

fn show(view: &View, name: &UnitName, unit: &ViewedUnit, content: bool) -> Unit {
    let reports = view.reports.values();
    let reports: Vec<_> = reports
        .filter_map(|report| report.units.get(name))
        .collect();
    let current = if reports.is_empty() || unit.record.target == TargetState::Inactive {
        TargetState::Inactive
    } else if reports.iter().any(|report| report.ready) {
        unit.record.target
    } else {
        TargetState::Loaded
    };
    Unit {
        content: content.then(|| unit.record.stable.content.clone()),
        current_state: current.to_string(),
        desired_state: unit.record.target.to_string(),
        machine_id: String::new(),
        name: name.to_string(),
        options: unit.parsed.file.options().to_vec(),
    }
}

pub(super) async fn put(
    State(api): State<Api>,
    Path(path): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response> {
    body::require_json(&headers)?;
    let request: Unit = body::decode(&bytes)?;
    if !request.name.is_empty() && request.name != path {
        let text = format!(
            "name in URL {path:?} differs from unit name in request body {:?}",
            request.name
        );
        return Err(ApiError::bad(text));
    }
    let name = UnitName::parse(&path).map_err(|error| ApiError::bad(error.to_string()))?;
    let target = wanted_target(&name, &request.desired_state)?;
    match (content_of(&request)?, target) {
        (Some(content), target) => submit(&api, &name, content, target).await,
        (None, Some(target)) => set_target(&api, &name, target).await,
        (None, None) => match api.registry.unit(&name).await? {
            Some(_) => {
                let text = "must provide DesiredState to update existing unit";
                Err(ApiError::conflict(text))
            }
            None => Err(nothing_to_create()),
        },
    }
}

fn nothing_to_create() -> ApiError {
    ApiError::conflict("unit does not exist and options field empty")
}

fn wanted_target(name: &UnitName, word: &str) -> Result<Option<TargetState>> {
    if word.is_empty() {
        return Ok(None);
    }
    let target = TargetState::parse(word).ok_or_else(|| {
        ApiError::bad(format!(
            "invalid desiredState {word:?}: expect inactive, loaded, or launched"
        ))
    })?;
    if name.is_template() && target != TargetState::Inactive {
        let text = format!("cannot activate template {:?}", name.as_str());
        return Err(ApiError::bad(text));
    }
    Ok(Some(target))
}

/// The file in a request, none if it carries none. Bytes win over options.
fn content_of(request: &Unit) -> Result<Option<Content>> {
    let content = match &request.content {
        Some(content) => content.clone(),
        None if request.options.is_empty() => return Ok(None),
        None => serialize(&request.options),
    };
    let size = content.as_bytes().len();
    if size > CONTENT_MAX {
        let text = format!("unit file is {size} bytes long (max {CONTENT_MAX})");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(Some(content))
}

async fn submit(
    api: &Api,
    name: &UnitName,
    content: Content,
    target: Option<TargetState>,
) -> Result<Response> {
    let parsed = Parsed::parse(name.clone(), &content);
    parsed
        .validate()
        .map_err(|error| ApiError::bad(error.to_string()))?;
    refuse_unless_global(name, &parsed, target)?;
    let submission = api
        .registry
        .submit(name, content, Owner::Api, target)
        .await?;
    let status = match submission {
        Submission::Created(_) => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    };
    let mut response = status.into_response();
    for note in parsed.notes() {
        if let Ok(value) = HeaderValue::from_str(&format!("Unit {name}: {note}")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    Ok(response)
}

async fn set_target(api: &Api, name: &UnitName, target: TargetState) -> Result<Response> {
    let Some(stored) = api.registry.unit(name).await? else {
        return Err(nothing_to_create());
    };
    let parsed = Parsed::parse(name.clone(), &stored.record.stable.content);
    refuse_unless_global(name, &parsed, Some(target))?;
    if api.registry.set_target(name, stored, target).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(nothing_to_create())
    }
}

fn refuse_unless_global(
    name: &UnitName,
    parsed: &Parsed,
    target: Option<TargetState>,
) -> Result<()> {
    if parsed.options.global || target.is_none_or(|target| target == TargetState::Inactive) {
        return Ok(());
    }
    Err(ApiError::conflict(format!(
        "unit {name} is not global, and this version does not schedule such units to a machine: it can be submitted, \
         shown and destroyed; with Global=true in its [X-Fleet] section it runs on every matching machine"
    )))
}

pub(super) async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode> {
    let name = UnitName::parse(&name).map_err(|_| ApiError::no_unit())?;
    if api.registry.destroy(&name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::no_unit())
    }
}
