//! A live machine, as list-machines shows it.

use std::borrow::Cow;

use fleet_core::api::Machine;
use fleet_core::machine::Metadata;
use fleet_core::machine::Scheduling;
use serde::Serialize;

use crate::describe;
use crate::listing::{Column, Row};
use crate::paint;

/// A live machine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineRow {
    id: String,
    ip: String,
    metadata: Metadata,
    /// `normal`, `cordoned` or `drained`.
    scheduling: String,
    /// The machine's version of fleetd. `None` if the queried fleetd does not send it.
    version: Option<String>,
}

impl From<Machine> for MachineRow {
    fn from(machine: Machine) -> Self {
        Self {
            id: machine.id,
            ip: machine.primary_ip,
            metadata: machine.metadata,
            scheduling: match machine.scheduling {
                normal if normal.is_empty() => Scheduling::Normal.as_str().to_owned(),
                scheduling => scheduling,
            },
            version: Some(machine.version).filter(|version| !version.is_empty()),
        }
    }
}

impl Row for MachineRow {
    const KIND: &'static str = "MachineList";
    const TABLE: &'static str = "machine,ip,metadata";
    const WIDE: &'static str = "machine,ip,metadata,status,version";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("machine", |row, full| {
            describe::machine(&row.id, "", full).into()
        }),
        Column::new("ip", |row, _| Cow::from(&row.ip)),
        Column::new("metadata", |row, _| {
            describe::metadata(&row.metadata).into()
        }),
        Column::painted(
            "status",
            |row, _| Cow::from(&row.scheduling),
            |row| paint::scheduling(&row.scheduling),
        ),
        Column::new("version", |row, _| {
            row.version.as_deref().unwrap_or_default().into()
        }),
    ];

    /// Returns the columns. fleet 1.0 had no column for scheduling: scripts that cut its table get
    /// one only while a machine is cordoned.
    fn table(rows: &[Self]) -> &'static str {
        let normal = Scheduling::Normal.as_str();
        if rows.iter().all(|row| row.scheduling == normal) {
            Self::TABLE
        } else {
            "machine,ip,metadata,status"
        }
    }

    fn name(&self) -> &str {
        &self.id
    }
}
