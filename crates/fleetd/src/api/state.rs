//! `state`: what the machines' systemds say, one row for each unit on each machine.

use axum::Json;
use axum::extract::{Path, State};
use fleet_core::api::{StatePage, UnitState};
use fleet_core::keys;

use super::error::{ApiError, Result};
use super::page::page;
use super::view::View;
use super::{Api, Query};

pub(super) async fn list(State(api): State<Api>, query: Query) -> Result<Json<StatePage>> {
    let states = states(
        &api,
        query.machine_id.as_deref(),
        query.unit_name.as_deref(),
        query.details,
    )
    .await?;
    let (states, next_page_token) = page(states, &query.page_tokens, api.page_limit)?;
    Ok(Json(StatePage {
        next_page_token,
        states,
    }))
}

/// The first machine's state, as the original answers for a global unit.
pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<UnitState>> {
    let first = states(&api, None, Some(&name), false)
        .await?
        .into_iter()
        .next();
    first.map(Json).ok_or_else(ApiError::no_unit)
}

async fn states(
    api: &Api,
    machine: Option<&str>,
    unit: Option<&str>,
    details: bool,
) -> Result<Vec<UnitState>> {
    let view = View::read(&**api.registry.store(), &[keys::REPORTS]).await?;
    let mut states = Vec::new();
    for (id, report) in &view.reports {
        if machine.is_some_and(|wanted| wanted != id.as_str()) {
            continue;
        }
        for (name, report) in &report.units {
            if unit.is_none_or(|wanted| wanted == name.as_str()) {
                states.push(UnitState {
                    hash: report.hash.clone(),
                    machine_id: id.to_string(),
                    name: name.to_string(),
                    systemd_active_state: report.active.clone(),
                    systemd_load_state: report.load.clone(),
                    systemd_sub_state: report.sub.clone(),
                    report: details.then(|| report.clone()),
                });
            }
        }
    }
    states.sort_by(|a, b| (&a.name, &a.machine_id).cmp(&(&b.name, &b.machine_id)));
    Ok(states)
}
