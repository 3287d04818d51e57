//! list-units, list-unit-files, list-machines: what their rows hold, and how they are shown.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use fleet_core::api::{Machine, Unit};
use fleet_core::machine::Metadata;
use fleet_core::record::{Scheduling, UnitReport};
use fleet_core::unit::Hash;
use serde::Serialize;

use crate::client::{Addresses, Client, StateRow};
use crate::describe;
use crate::listing::{Column, Listing, Row};
use crate::options::{description, is_global};
use crate::output::talk;
use crate::paint::{self, Paint};

const RETRIEVING_UNITS: &str = "Error retrieving list of units from repository";

/// A unit on a machine. Of what thousands of rows say alike there is one copy.
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

/// The machine that a unit is on.
#[derive(Debug, Default, Serialize)]
struct On {
    machine: String,
    /// Its address; empty if the machine is not known any more.
    ip: String,
    /// Both as a table shows them, for each unit there.
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

/// How it is there.
#[derive(Debug, Serialize)]
struct State {
    load: String,
    active: String,
    sub: String,
}

/// The texts of a column that there is a copy of.
#[derive(Clone, Default)]
struct Texts {
    known: HashSet<Arc<str>>,
    /// Most rows say what the one before them says, which is found without looking for it.
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

/// Makes rows of what fleetd answers.
#[derive(Clone, Default)]
struct UnitRows {
    /// The machine of the last row: they come machine by machine.
    on: Arc<On>,
    /// All that units are like, which is little.
    states: Vec<Arc<State>>,
    name: Texts,
    hash: Texts,
}

impl UnitRows {
    fn row(&mut self, row: &StateRow<'_>, addresses: &Addresses) -> UnitRow {
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

/// What a machine says of a unit beyond its state.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    revision: u64,
    /// RFC 3339; none if systemd never changed its state.
    since: Option<String>,
    restarts: u32,
    result: String,
    ready: bool,
}

impl From<&UnitReport> for Details {
    fn from(report: &UnitReport) -> Self {
        Self {
            revision: report.revision,
            since: (report.since > 0).then(|| describe::timestamp(report.since)),
            restarts: report.restarts,
            result: report.result.clone(),
            ready: report.ready,
        }
    }
}

impl UnitRow {
    /// None of it shows as an empty cell.
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

/// Orders rows by unit, then machine. fleetd reads them machine by machine, so that it need not hold them all.
fn by_unit(mut rows: Vec<UnitRow>) -> Vec<UnitRow> {
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
        // They are in order already, which is seen at one glance.
        unit.sort_by(|a, b| rows[*a].on.machine.cmp(&rows[*b].on.machine));
        for (at, place) in unit.into_iter().zip(&mut place) {
            places[at] = place;
        }
    }
    // Each goes to its place, so that there is never a second copy of all.
    for at in 0..rows.len() {
        while places[at] != at {
            let place = places[at];
            rows.swap(at, place);
            places.swap(at, place);
        }
    }
    rows
}

/// What every machine says of its units.
pub(super) async fn units(
    listing: Listing<UnitRow>,
    client: &mut Client,
    paint: Paint,
) -> anyhow::Result<()> {
    let detailed = listing.detailed();
    let read = async |client: &mut Client| {
        let mut rows = UnitRows::default();
        let row = move |state: StateRow<'_>, addresses: &Addresses| rows.row(&state, addresses);
        let rows = client.states(detailed, row).await;
        rows.map(by_unit).context(RETRIEVING_UNITS)
    };
    listing.print(client, paint, read).await
}

/// A unit in the registry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnitFileRow {
    name: String,
    hash: String,
    target_state: String,
    current_state: String,
    global: bool,
    /// The machine that a unit which is not global is scheduled to.
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
        // A global unit is in a state on each machine: list-units shows those.
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

/// The units of the registry.
pub(super) async fn unit_files(
    listing: Listing<UnitFileRow>,
    client: &mut Client,
    paint: Paint,
) -> anyhow::Result<()> {
    if listing.asks_for("tmachine") {
        talk("WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead");
    }
    let read = async |client: &mut Client| {
        let units = client.units_with_states().await;
        let units = units.context(RETRIEVING_UNITS)?;
        Ok(units.into_iter().map(UnitFileRow::from).collect())
    };
    listing.print(client, paint, read).await
}

/// A live machine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineRow {
    id: String,
    ip: String,
    metadata: Metadata,
    /// `normal`, `cordoned` or `drained`.
    scheduling: String,
    /// Of fleetd there; none if the fleetd that was asked does not tell.
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
        Column::new("metadata", |row, _| join(&row.metadata).into()),
        Column::painted(
            "status",
            |row, _| Cow::from(&row.scheduling),
            |row| paint::scheduling(&row.scheduling),
        ),
        Column::new("version", |row, _| {
            row.version.as_deref().unwrap_or_default().into()
        }),
    ];

    /// fleet 1.0 had no such column: scripts that cut its table meet one only where somebody cordoned a machine.
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

/// The live machines.
pub(super) async fn machines(
    listing: Listing<MachineRow>,
    client: &mut Client,
    paint: Paint,
) -> anyhow::Result<()> {
    let detailed = listing.detailed();
    let read = async |client: &mut Client| {
        let machines = client.machines(detailed).await;
        let machines =
            machines.context("Error retrieving list of active machines from fleet API")?;
        Ok(machines.into_iter().map(MachineRow::from).collect())
    };
    listing.print(client, paint, read).await
}

/// Metadata as listings show it: `az=1,host=n1`, or `-` if there is none.
pub(crate) fn join(metadata: &Metadata) -> String {
    let pairs: Vec<String> = metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if pairs.is_empty() {
        "-".to_owned()
    } else {
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_by_unit_then_machine() {
        let mut rows = UnitRows::default();
        let machines = ["c", "a", "b"];
        // As fleetd gives them, machine by machine, but for the machines' order.
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
