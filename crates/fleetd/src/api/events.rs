//! `events`: the decisions of leaders, and their reasons.

use axum::Json;
use axum::extract::State;
use fleet_core::api::{EventList, EventRow};
use fleet_core::keys;
use fleet_core::record::{self, Event};
use fleet_core::unit::UnitName;
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, Result};
use super::long_poll::{self, LONGEST_WAIT};
use super::{Api, Query};
use crate::store::{Entry, Snapshot};

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
        let (events, unreadable) = events(&snapshot, after, unit.as_ref());
        let restored = after.is_some_and(|after| after > snapshot.revision);
        if after.is_none() || restored || !events.is_empty() || Instant::now() >= deadline {
            return Ok(Json(EventList {
                events,
                unreadable,
                next_after: snapshot.revision,
            }));
        }
        // The listing has no event that matches, so only later ones can.
        after = Some(snapshot.revision);
        if let Ok(waited) =
            timeout_at(deadline, long_poll::wait(&**store, &[keys::EVENTS], after)).await
        {
            waited?;
        }
    }
}

/// Returns the events of that unit written after that store revision, and the number of events that
/// cannot be read. A newer version may have kinds that this one does not know.
fn events(
    snapshot: &Snapshot,
    after: Option<u64>,
    unit: Option<&UnitName>,
) -> (Vec<EventRow>, usize) {
    let after = after.unwrap_or(0);
    let (mut events, mut unreadable) = (Vec::new(), 0);
    let new = |entry: &&Entry| entry.modified > after;
    for entry in snapshot.entries.values().filter(new) {
        match record::decode::<Event>(&entry.value) {
            Ok(event) if unit.is_none() || event.unit.as_ref() == unit => events.push(EventRow {
                registry_revision: entry.modified,
                event,
            }),
            Ok(_) => {}
            Err(_) => unreadable += 1,
        }
    }
    (events, unreadable)
}
