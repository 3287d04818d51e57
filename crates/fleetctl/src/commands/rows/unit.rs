//! A unit on a machine, as list-units shows it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::details::Details;
use crate::client::{Addresses, StateRow};
use crate::describe;
use crate::listing::{Column, Row};
use crate::paint;

/// A unit on a machine. Values that thousands of rows share are stored once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnitRow {
    name: Arc<str>,
    #[serde(flatten)]
    on: Arc<On>,
    #[serde(flatten)]
    state: Arc<State>,
    hash: Arc<str>,
    #[serde(flatten)]
    details: Option<Box<Details>>,
}

/// The machine of a unit.
#[derive(Debug, Default, Serialize)]
struct On {
    machine: String,
    /// The address; empty if the machine is no longer known.
    ip: String,
    /// The machine as a table shows it, for each of its units.
    #[serde(skip)]
    cell: OnceLock<String>,
}

impl On {
    fn cell(&self, full: bool) -> &str {
        let cell = || match &*self.machine {
            "" => String::new(),
            machine => describe::machine(machine, &self.ip, full),
        };
        self.cell.get_or_init(cell)
    }
}

/// The state of the unit there.
#[derive(Debug, Serialize)]
struct State {
    load: String,
    active: String,
    sub: String,
}

/// The texts of a column, each stored once.
#[derive(Clone, Default)]
struct Texts {
    known: HashSet<Arc<str>>,
    /// The previous row's text. Most rows repeat it, so it is checked first.
    last: Arc<str>,
}

impl Texts {
    fn one(&mut self, text: &str) -> Arc<str> {
        if *self.last != *text {
            self.last = self.known.get(text).cloned().unwrap_or_else(|| {
                let text: Arc<str> = text.into();
                self.known.insert(text.clone());
                text
            });
        }
        self.last.clone()
    }
}

/// Makes rows of fleetd's responses.
#[derive(Clone, Default)]
pub(in crate::commands) struct UnitRows {
    /// The machine of the previous row: rows are grouped by machine.
    on: Arc<On>,
    /// All distinct states of units, which are few.
    states: Vec<Arc<State>>,
    name: Texts,
    hash: Texts,
}

impl UnitRows {
    pub(in crate::commands) fn row(
        &mut self,
        row: &StateRow<'_>,
        addresses: &Addresses,
    ) -> UnitRow {
        let id = &*row.machine_id;
        if self.on.machine != id {
            self.on = Arc::new(On {
                machine: id.to_owned(),
                ip: addresses.get(id).cloned().unwrap_or_default(),
                cell: OnceLock::new(),
            });
        }
        UnitRow {
            name: self.name.one(&row.name),
            on: self.on.clone(),
            state: self.state(row),
            hash: self.hash.one(&row.hash),
            details: row.report.as_deref().map(Details::from).map(Box::new),
        }
    }

    fn state(&mut self, row: &StateRow<'_>) -> Arc<State> {
        let (load, active, sub) = (
            &*row.systemd_load_state,
            &*row.systemd_active_state,
            &*row.systemd_sub_state,
        );
        let alike = |state: &&Arc<State>| {
            (&*state.load, &*state.active, &*state.sub) == (load, active, sub)
        };
        if let Some(known) = self.states.iter().find(alike) {
            return known.clone();
        }
        let state = Arc::new(State {
            load: load.to_owned(),
            active: active.to_owned(),
            sub: sub.to_owned(),
        });
        self.states.push(state.clone());
        state
    }
}

impl UnitRow {
    /// Returns a detail. A missing one is an empty cell.
    fn detail<'a, T: Default>(&'a self, show: impl Fn(&'a Details) -> T) -> T {
        self.details.as_deref().map(show).unwrap_or_default()
    }
}

impl Row for UnitRow {
    const KIND: &'static str = "UnitStateList";
    const TABLE: &'static str = "unit,machine,active,sub";
    const WIDE: &'static str = "unit,machine,active,sub,revision,since,restarts,result";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("unit", |row, _| Cow::from(&*row.name)),
        Column::painted(
            "load",
            |row, _| Cow::from(&*row.state.load),
            |row| paint::load(&row.state.load),
        ),
        Column::painted(
            "active",
            |row, _| Cow::from(&*row.state.active),
            |row| paint::active(&row.state.active),
        ),
        Column::painted(
            "sub",
            |row, _| Cow::from(&*row.state.sub),
            |row| paint::active(&row.state.active),
        ),
        Column::new("machine", |row, full| row.on.cell(full).into()),
        Column::new("hash", |row, full| describe::hash(&row.hash, full).into()),
        Column::new("revision", |row, _| {
            row.detail(|more| more.revision.to_string()).into()
        }),
        Column::new("since", |row, _| {
            row.detail(|more| more.since.as_deref().unwrap_or_default())
                .into()
        }),
        Column::new("restarts", |row, _| {
            row.detail(|more| more.restarts.to_string()).into()
        }),
        Column::painted(
            "result",
            |row, _| row.detail(|more| &*more.result).into(),
            |row| paint::result(row.detail(|more| &*more.result)),
        ),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

/// Orders rows by unit, then machine. fleetd reads them machine by machine, so it never holds them
/// all.
pub(in crate::commands) fn by_unit(mut rows: Vec<UnitRow>) -> Vec<UnitRow> {
    let mut units: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        match units.get_mut(&row.name) {
            Some(unit) => unit.push(at),
            None => drop(units.insert(row.name.clone(), vec![at])),
        }
    }
    let mut places = vec![0; rows.len()];
    let mut place = 0..;
    for mut unit in units.into_values() {
        // They are usually in order already, which one pass shows.
        unit.sort_by(|a, b| rows[*a].on.machine.cmp(&rows[*b].on.machine));
        for (at, place) in unit.into_iter().zip(&mut place) {
            places[at] = place;
        }
    }
    // Each row moves to its place, so there is never a second copy of all rows.
    for at in 0..rows.len() {
        while places[at] != at {
            let place = places[at];
            rows.swap(at, place);
            places.swap(at, place);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_by_unit_then_machine() {
        let mut rows = UnitRows::default();
        let machines = ["c", "a", "b"];
        // Ordered as fleetd sends them, machine by machine, except for the order of the machines.
        let units = |machine| match machine {
            "a" => vec!["web", "api", "job"],
            _ => vec!["api", "web"],
        };
        let told = machines.into_iter().flat_map(|machine| {
            let row = move |name: &'static str| StateRow {
                machine_id: machine.into(),
                name: name.into(),
                ..StateRow::default()
            };
            units(machine).into_iter().map(row)
        });
        let ordered = by_unit(told.map(|row| rows.row(&row, &Addresses::new())).collect());
        let told: Vec<_> = ordered
            .iter()
            .map(|row| format!("{} {}", row.name, row.on.machine))
            .collect();
        assert_eq!(
            told,
            [
                "api a", "api b", "api c", "job a", "web a", "web b", "web c"
            ]
        );
    }
}
