//! The leaders' decisions, on the wire.

use serde::{Deserialize, Serialize};

use crate::record::Event;

/// The answer to `GET events` (not in fleet 1.0): the events of all units, or of one unit with
/// `?unit=NAME`.
///
/// With `?after=REVISION` it holds only events written after that registry revision. If there are
/// none yet, the request waits for one, up to 30 seconds. A client that continues with `nextAfter`
/// misses no event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventList {
    /// The events, oldest first.
    pub events: Vec<EventRow>,
    /// The number of further events that cannot be read: damaged, or of a kind only newer versions
    /// know.
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
