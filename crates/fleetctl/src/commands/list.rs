//! list-units, list-unit-files, list-machines.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use fleet_core::api::{Machine, Unit, UnitState};
use fleet_core::machine::Metadata;
use fleet_core::unit::Hash;

use crate::client::Client;
use crate::describe;
use crate::options::{description, is_global};
use crate::output::{talk, write};
use crate::tabwriter::align;

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl list-units
  fleetctl list-units --full --no-legend --fields=unit,machine,active,hash")]
pub(crate) struct ListUnits {
    /// Columns to print, of active,hash,load,machine,sub,unit
    #[arg(
        long,
        value_name = "FIELD,...",
        default_value = "unit,machine,active,sub"
    )]
    fields: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl list-unit-files
  fleetctl list-unit-files --no-legend --fields=unit,desc")]
pub(crate) struct ListUnitFiles {
    /// Columns to print, of desc,dstate,global,hash,state,target,unit
    #[arg(
        long,
        value_name = "FIELD,...",
        default_value = "unit,hash,dstate,state,target"
    )]
    fields: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl list-machines
  fleetctl list-machines --full --no-legend --fields=machine")]
pub(crate) struct ListMachines {
    /// Columns to print, of ip,machine,metadata
    #[arg(long, value_name = "FIELD,...", default_value = "machine,ip,metadata")]
    fields: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Args)]
struct Format {
    /// Print machine ids and hashes whole
    #[arg(long, short = 'l', alias = "l")]
    full: bool,
    /// Print no column headers
    #[arg(long)]
    no_legend: bool,
}

/// A column: the name it is asked for by, and what it shows of a `T` (whole, if the flag is set).
type Column<T> = (&'static str, fn(&T, bool) -> String);

impl ListUnits {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let columns = choose(&self.fields, UNIT_COLUMNS)?;
        let retrieving = "Error retrieving list of units from repository";
        let states = client.states().await.context(retrieving)?;
        let machines = client.machines().await.context(retrieving)?;
        let addresses: BTreeMap<String, String> = machines
            .into_iter()
            .map(|machine| (machine.id, machine.primary_ip))
            .collect();
        let rows = states.into_iter().map(|state| UnitRow {
            ip: addresses
                .get(&state.machine_id)
                .cloned()
                .unwrap_or_default(),
            state,
        });
        print(&columns, rows, &self.format)
    }
}

/// A unit on a machine, with that machine's address; empty if the machine is not known any more.
struct UnitRow {
    state: UnitState,
    ip: String,
}

const UNIT_COLUMNS: &[Column<UnitRow>] = &[
    ("unit", |row, _| row.state.name.clone()),
    ("load", |row, _| row.state.systemd_load_state.clone()),
    ("active", |row, _| row.state.systemd_active_state.clone()),
    ("sub", |row, _| row.state.systemd_sub_state.clone()),
    ("machine", |row, full| {
        if row.state.machine_id.is_empty() {
            String::new()
        } else {
            describe::machine(&row.state.machine_id, &row.ip, full)
        }
    }),
    ("hash", |row, full| hash(&row.state.hash, full)),
];

impl ListUnitFiles {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let columns = choose(&self.fields, UNIT_FILE_COLUMNS)?;
        if columns.iter().any(|(name, _)| *name == "tmachine") {
            talk("WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead");
        }
        let units = client
            .units()
            .await
            .context("Error retrieving list of units from repository")?;
        print(&columns, units, &self.format)
    }
}

const UNIT_FILE_COLUMNS: &[Column<Unit>] = &[
    ("unit", |unit, _| unit.name.clone()),
    ("hash", |unit, full| {
        hash(&Hash::of(&unit.options).to_string(), full)
    }),
    ("dstate", |unit, _| unit.desired_state.clone()),
    ("state", |unit, _| {
        // A global unit is in a state on each machine: list-units shows those.
        if is_global(&unit.options) {
            String::new()
        } else {
            unit.current_state.clone()
        }
    }),
    ("target", target),
    ("tmachine", target),
    ("global", |unit, _| is_global(&unit.options).to_string()),
    ("desc", |unit, _| {
        description(&unit.options).unwrap_or_default().to_owned()
    }),
];

fn target(unit: &Unit, full: bool) -> String {
    if is_global(&unit.options) {
        "global".to_owned()
    } else if unit.machine_id.is_empty() {
        String::new()
    } else {
        describe::machine(&unit.machine_id, "", full)
    }
}

impl ListMachines {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let columns = choose(&self.fields, MACHINE_COLUMNS)?;
        let machines = client
            .machines()
            .await
            .context("Error retrieving list of active machines from fleet API")?;
        print(&columns, machines, &self.format)
    }
}

const MACHINE_COLUMNS: &[Column<Machine>] = &[
    ("machine", |machine, full| {
        describe::machine(&machine.id, "", full)
    }),
    ("ip", |machine, _| machine.primary_ip.clone()),
    ("metadata", |machine, _| join(&machine.metadata)),
];

/// Metadata as listings show it: `az=1,host=n1`, or `-` if there is none.
pub(super) fn join(metadata: &Metadata) -> String {
    let pairs: Vec<String> = metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    dash(pairs.join(","))
}

fn hash(hash: &str, full: bool) -> String {
    if full {
        hash.to_owned()
    } else {
        describe::short_hash(hash).to_owned()
    }
}

/// An empty cell would move what stands behind it into the wrong column for a script.
fn dash(cell: String) -> String {
    if cell.is_empty() {
        "-".to_owned()
    } else {
        cell
    }
}

/// Picks the columns that `--fields` names. The texts are fleet 1.0's.
fn choose<T>(fields: &str, columns: &[Column<T>]) -> anyhow::Result<Vec<Column<T>>> {
    if fields.is_empty() {
        bail!("Must define output format");
    }
    fields
        .split(',')
        .map(|field| {
            columns
                .iter()
                .find(|(name, _)| *name == field)
                .copied()
                .ok_or_else(|| anyhow!("Invalid key in output format: \"{field}\""))
        })
        .collect()
}

fn print<T>(
    columns: &[Column<T>],
    items: impl IntoIterator<Item = T>,
    format: &Format,
) -> anyhow::Result<()> {
    let legend = columns
        .iter()
        .map(|(name, _)| name.to_uppercase())
        .collect();
    let mut rows: Vec<Vec<String>> = if format.no_legend {
        Vec::new()
    } else {
        vec![legend]
    };
    rows.extend(items.into_iter().map(|item| {
        let cell = |(_, show): &Column<T>| dash(on_one_line(&show(&item, format.full)));
        columns.iter().map(cell).collect()
    }));
    write(align(&rows).as_bytes())
}

/// A description may be continued over lines, hold tabs, or what a terminal would obey.
fn on_one_line(cell: &str) -> String {
    cell.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_chosen_in_the_order_asked_for() {
        let names = |fields| -> Vec<&str> {
            let columns = choose(fields, MACHINE_COLUMNS).expect("valid fields");
            columns.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("ip,machine"), ["ip", "machine"]);
    }

    #[test]
    fn a_wrong_field_is_named() {
        let error = |fields| match choose(fields, MACHINE_COLUMNS) {
            Ok(_) => panic!("{fields} is accepted"),
            Err(error) => error.to_string(),
        };
        assert_eq!(error(""), "Must define output format");
        assert_eq!(error("ip,bogus"), "Invalid key in output format: \"bogus\"");
    }

    #[test]
    fn a_cell_never_breaks_its_row() {
        assert_eq!(on_one_line("two\\\n\tlines\x1b[2J"), "two\\  lines [2J");
    }
}
