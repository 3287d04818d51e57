//! A unit in the registry, as list-unit-files shows it.

use std::borrow::Cow;

use fleet_core::api::Unit;
use fleet_core::unit::Hash;
use serde::Serialize;

use crate::describe;
use crate::listing::{Column, Row};
use crate::options::{description, is_global};

/// A unit in the registry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnitFileRow {
    name: String,
    hash: String,
    target_state: String,
    current_state: String,
    global: bool,
    /// The machine of a unit that is not global. `None` for a global unit.
    machine: Option<String>,
    description: String,
}

impl From<Unit> for UnitFileRow {
    fn from(unit: Unit) -> Self {
        Self {
            hash: Hash::of(&unit.options).to_string(),
            global: is_global(&unit.options),
            description: description(&unit.options).unwrap_or_default().to_owned(),
            machine: Some(unit.machine_id).filter(|machine| !machine.is_empty()),
            name: unit.name,
            target_state: unit.desired_state,
            current_state: unit.current_state,
        }
    }
}

impl UnitFileRow {
    fn target(&self, full: bool) -> Cow<'_, str> {
        match &self.machine {
            _ if self.global => "global".into(),
            Some(machine) => describe::machine(machine, "", full).into(),
            None => "".into(),
        }
    }
}

impl Row for UnitFileRow {
    const KIND: &'static str = "UnitFileList";
    const TABLE: &'static str = "unit,hash,dstate,state,target";
    const WIDE: &'static str = "unit,hash,dstate,state,target,desc";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("unit", |row, _| Cow::from(&row.name)),
        Column::new("hash", |row, full| describe::hash(&row.hash, full).into()),
        Column::new("dstate", |row, _| Cow::from(&row.target_state)),
        // A global unit has a state on each machine, which list-units shows.
        Column::new("state", |row, _| {
            if row.global {
                "".into()
            } else {
                Cow::from(&row.current_state)
            }
        }),
        Column::new("target", Self::target),
        Column::new("tmachine", Self::target),
        Column::new("global", |row, _| row.global.to_string().into()),
        Column::new("desc", |row, _| Cow::from(&row.description)),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}
