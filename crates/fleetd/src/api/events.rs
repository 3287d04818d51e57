//! `events`: what leaders decided, and why.

use axum::Json;
use axum::extract::State;
use fleet_core::api::{EventList, EventRow};
use fleet_core::keys;
use fleet_core::record;
use fleet_core::unit::UnitName;
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, Result};
use super::news::{self, LONGEST_WAIT};
use super::{Api, Query};
use crate::store::Snapshot;

pub(super) async fn list(State(api): State<Api>, query: Query) -> Result<Json<EventList>> {
    let unit = query
        .unit
        .map(|name| UnitName::parse(&name).map_err(|error| ApiError::bad(error.to_string())))
        .transpose()?;
    let store = api.registry.store();
    let deadline = Instant::now() + LONGEST_WAIT;
    let mut after = query.after;
    loop {
        let snapshot = store.list(&[keys::EVENTS]).await?;
        let events = events(&snapshot, after, unit.as_ref());
        let restored = after.is_some_and(|after| after > snapshot.revision);
        if after.is_none() || restored || !events.is_empty() || Instant::now() >= deadline {
            return Ok(Json(EventList {
                events,
                next_after: snapshot.revision,
            }));
        }
        // What was listed holds nothing that is asked for; only what comes after it may.
        after = Some(snapshot.revision);
        if let Ok(waited) = timeout_at(deadline, news::wait(&**store, &[keys::EVENTS], after)).await
        {
            waited?;
        }
    }
}

/// Those written after that store revision, about that unit. One that cannot be read is left out: a newer version may
/// have kinds that this one does not know.
fn events(snapshot: &Snapshot, after: Option<u64>, unit: Option<&UnitName>) -> Vec<EventRow> {
    let after = after.unwrap_or(0);
    let entries = snapshot.entries.values();
    entries
        .filter(|entry| entry.modified > after)
        .filter_map(|entry| {
            Some(EventRow {
                registry_revision: entry.modified,
                event: record::decode(&entry.value).ok()?,
            })
        })
        .filter(|row: &EventRow| unit.is_none() || row.event.unit.as_ref() == unit)
        .collect()
}
