//! A global unit with counts of machines, as list-globals shows it.

use std::borrow::Cow;
use std::time::SystemTime;

use fleet_core::api::RolloutRow;
use serde::Serialize;

use super::condition::ConditionRow;
use crate::describe;
use crate::listing::{Column, Row};
use crate::paint;

/// A global unit on all machines.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GlobalRow {
    name: String,
    target_state: String,
    revision: u64,
    candidate: Option<u64>,
    phase: String,
    reason: String,
    desired: usize,
    current: usize,
    ready: usize,
    up_to_date: usize,
    available: usize,
    failed: usize,
    deferred: usize,
    metadata: String,
    /// When the stable revision was submitted, in RFC 3339.
    at: String,
    /// The age of the stable revision for people, at the time of reading.
    #[serde(skip)]
    age: String,
    conditions: Vec<ConditionRow>,
}

impl From<RolloutRow> for GlobalRow {
    fn from(row: RolloutRow) -> Self {
        Self {
            name: row.unit,
            target_state: row.desired_state,
            revision: row.revision,
            candidate: row.candidate,
            phase: row.phase,
            reason: row.reason,
            desired: row.desired,
            current: row.current,
            ready: row.ready,
            up_to_date: row.up_to_date,
            available: row.available,
            failed: row.failed,
            deferred: row.deferred,
            metadata: row.metadata,
            at: describe::timestamp(row.at),
            age: describe::age(row.at, SystemTime::now()),
            conditions: row.conditions.into_iter().map(ConditionRow::from).collect(),
        }
    }
}

impl GlobalRow {
    /// Returns the revision: `2`, or during a rollout `2->3`.
    fn revisions(&self) -> String {
        match self.candidate {
            Some(candidate) => format!("{}->{candidate}", self.revision),
            None => self.revision.to_string(),
        }
    }
}

impl Row for GlobalRow {
    const KIND: &'static str = "GlobalUnitList";
    const TABLE: &'static str =
        "unit,rev,desired,current,ready,up-to-date,available,failed,deferred,metadata,age";
    const WIDE: &'static str = "unit,rev,desired,current,ready,up-to-date,available,failed,deferred,metadata,age,dstate,phase,reason";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("unit", |row, _| Cow::from(&row.name)),
        Column::painted(
            "rev",
            |row, _| row.revisions().into(),
            |row| paint::phase(&row.phase),
        ),
        Column::new("desired", |row, _| row.desired.to_string().into()),
        Column::new("current", |row, _| row.current.to_string().into()),
        Column::new("ready", |row, _| row.ready.to_string().into()),
        Column::new("up-to-date", |row, _| row.up_to_date.to_string().into()),
        Column::new("available", |row, _| row.available.to_string().into()),
        Column::painted(
            "failed",
            |row, _| row.failed.to_string().into(),
            |row| paint::any(row.failed),
        ),
        Column::new("deferred", |row, _| row.deferred.to_string().into()),
        Column::new("metadata", |row, _| Cow::from(&row.metadata)),
        Column::new("age", |row, _| Cow::from(&row.age)),
        Column::new("dstate", |row, _| Cow::from(&row.target_state)),
        Column::painted(
            "phase",
            |row, _| Cow::from(&row.phase),
            |row| paint::phase(&row.phase),
        ),
        Column::new("reason", |row, _| Cow::from(&row.reason)),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}
