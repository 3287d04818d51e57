//! Decisions of leaders, on the wire.

use serde::{Deserialize, Serialize};

use crate::record::Event;

/// `GET events` (ours), of all units or, with `?unit=NAME`, of one.
///
/// With `?after=REVISION` only those that were written after that registry revision; if there are none yet, the answer
/// waits for them, up to 30 seconds. Asking again with `nextAfter` misses none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<EventRow>,
    /// How many there are besides that cannot be read: damaged, or of a kind that a newer version knows.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: usize,
    /// The revision for the next request.
    pub next_after: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// One event of an [`EventList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRow {
    /// The registry revision that wrote it.
    pub registry_revision: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}
