//! plan: what starting unit files would do to each machine, without doing it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueHint};
use fleet_core::api::{Batches, Plan, PlanBody, PlannedMachine, PlannedUnit, Unit};
use fleet_core::unit::{Content, UnitName};
use serde::Serialize;

use crate::client::Client;
use crate::describe;
use crate::document::{self, Syntax};
use crate::exit;
use crate::manifest::{self, Argument};
use crate::output::{printable, talk, write};
use crate::paint::{self, Paint};
use crate::resolve::{Sources, proposed};

#[derive(Args)]
#[command(
    after_help = "Changes nothing. Shows what `fleetctl start --replace` of the same units would do now.

Actions:
  start        the unit is not there yet
  restart      it runs, and the change needs a new process
  reload       systemd reads the file again; the process stays
  none         nothing changes there
  stop         it runs, and does not belong there any more
  not matched  it does not belong there
  deferred     the machine is offline, cordoned or drained, and changes later

Exit codes:
  0  nothing would change
  1  something would
  2  the command line is wrong
  3  that is unknown, or a file would be refused

Examples:
  fleetctl plan web.service
  fleetctl plan --full units/*.service
  fleetctl plan --output json web.service"
)]
pub(crate) struct PlanUnits {
    /// Paths of unit files or DaemonSet manifests (.yaml), or names of units in the registry;
    /// `.service` may be left out
    #[arg(value_name = "FILE|UNIT", required = true, value_hint = ValueHint::FilePath)]
    names: Vec<String>,
    /// Print every machine, with its whole id
    #[arg(long, short = 'l')]
    full: bool,
    /// Print a document for programs
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Syntax>,
}

impl PlanUnits {
    pub(super) async fn run(self, client: &mut Client, paint: Paint) -> ExitCode {
        match self.plan(client, paint).await {
            Ok(code) => code,
            Err(error) => {
                talk(format_args!("{error:#}"));
                exit::TROUBLE.into()
            }
        }
    }

    async fn plan(self, client: &mut Client, paint: Paint) -> anyhow::Result<ExitCode> {
        let plan = plan(client, &self.names).await?;
        let text = match self.output {
            Some(syntax) => document::one("Plan", &PlanDocument::from(&plan), syntax)?,
            None => {
                let blocks = plan.units.iter().map(|unit| block(unit, self.full, paint));
                blocks.collect()
            }
        };
        write(text.as_bytes())?;
        Ok(if plan.units.iter().any(|unit| unit.error.is_some()) {
            exit::TROUBLE.into()
        } else if plan.units.iter().any(changes) {
            exit::CHANGES.into()
        } else {
            ExitCode::SUCCESS
        })
    }
}

const PLANNING: &str = "Error planning units";

async fn plan(client: &mut Client, arguments: &[String]) -> anyhow::Result<Plan> {
    let arguments = manifest::arguments(arguments)?;
    let look_up = async |client: &mut Client, argument: &Argument| {
        let sources = Sources::look_up(client, argument).await?;
        Ok((sources.name.clone(), proposed(sources)?))
    };
    let mut units: Vec<(UnitName, Content)> = Vec::new();
    for unit in client.each(&arguments, look_up).await {
        let (name, content) = unit.context(PLANNING)?;
        match units.iter().find(|(other, _)| *other == name) {
            Some((_, other)) if *other != content => {
                bail!("{PLANNING}: {name} is given twice, with different content")
            }
            Some(_) => {}
            None => units.push((name, content)),
        }
    }
    ask(client, units).await
}

/// Returns what starting units with this content would do.
pub(super) async fn ask(
    client: &mut Client,
    units: impl IntoIterator<Item = (UnitName, Content)>,
) -> anyhow::Result<Plan> {
    let unit = |(name, content): (UnitName, Content)| Unit {
        name: name.to_string(),
        content: Some(content),
        ..Unit::default()
    };
    let units = units.into_iter().map(unit).collect();
    client.plan(&PlanBody { units }).await.context(PLANNING)
}

/// Returns whether anything would change. A refused unit changes nothing.
fn changes(unit: &PlannedUnit) -> bool {
    let acts = |machine: &PlannedMachine| {
        ["start", "restart", "reload", "stop"].contains(&machine.action.as_str())
    };
    ["create", "update"].contains(&unit.action.as_str()) || unit.machines.iter().any(acts)
}

/// Returns the effect on a unit in a few words: `update, restarts it: ExecStart= differs`.
pub(super) fn headline(unit: &PlannedUnit) -> String {
    if let Some(error) = &unit.error {
        return format!("{}: refused: {error}", unit.name);
    }
    let effect = match unit.effect.as_deref() {
        Some("restart") => "update, with a restart",
        Some("reload") => "update, which systemd only reads",
        Some(_) => "update, which restarts nothing",
        None if unit.action == "none" => "no change",
        None => &unit.action,
    };
    format!("{}: {effect}: {}", unit.name, unit.reason)
}

/// The order in which actions are listed: changes come first.
const ORDER: [&str; 7] = [
    "start",
    "restart",
    "reload",
    "stop",
    "none",
    "deferred",
    "not-matched",
];

/// Returns the lines of a unit. Machines with the same action and reason share one.
fn block(unit: &PlannedUnit, full: bool, paint: Paint) -> String {
    let mut lines = vec![printable(&headline(unit))];
    let notes = unit.notes.iter();
    lines.extend(notes.map(|note| printable(&format!("  note: {note}"))));
    let mut alike: BTreeMap<(Option<usize>, &str, &str), Vec<&str>> = BTreeMap::new();
    for machine in &unit.machines {
        let action = machine.action.as_str();
        let rank = ORDER.iter().position(|it| *it == action);
        let group = alike.entry((rank, action, &machine.reason)).or_default();
        group.push(&machine.machine_id);
    }
    let (mut batches, mut stops) = (unit.batches.as_ref(), unit.stops.as_ref());
    for ((_, action, reason), ids) in alike {
        let shown = format!("{:<11}", action.replace('-', " "));
        let (all, ids) = (describe::count(ids.len()), describe::machines(ids, full));
        lines.push(format!(
            "  {}  {}",
            paint.text(paint::planned(action), &shown),
            printable(&format!("{all} ({ids}): {reason}"))
        ));
        let turns_of = match action {
            "restart" | "reload" => batches.take(),
            "stop" => stops.take(),
            _ => None,
        };
        if let Some(batches) = turns_of {
            lines.push(printable(&format!("  {:<11}  {}", "", turns(batches))));
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Returns the turns as text: `1 machine at a time, in 3 turns: MaxUnavailable=10% of 3`.
fn turns(batches: &Batches) -> String {
    let turns = match batches.count {
        1 => "at once".to_owned(),
        count => format!("at a time, in {count} turns"),
    };
    format!(
        "{} {turns}: {}",
        describe::count(batches.machines),
        batches.reason
    )
}

/// The document of `--output json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlanDocument<'a> {
    registry_revision: u64,
    /// Whether anything would change, which the exit code shows too.
    changes: bool,
    units: Vec<UnitRow<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnitRow<'a> {
    name: &'a str,
    error: Option<&'a str>,
    /// `create`, `update` or `none`. `None` if the unit would be refused.
    action: Option<&'a str>,
    effect: Option<&'a str>,
    reason: &'a str,
    notes: &'a [String],
    batches: Option<&'a Batches>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stops: Option<&'a Batches>,
    machines: Vec<MachineRow<'a>>,
}

#[derive(Serialize)]
struct MachineRow<'a> {
    machine: &'a str,
    ip: &'a str,
    action: &'a str,
    reason: &'a str,
}

impl<'a> From<&'a Plan> for PlanDocument<'a> {
    fn from(plan: &'a Plan) -> Self {
        Self {
            registry_revision: plan.registry_revision,
            changes: plan.units.iter().any(changes),
            units: plan.units.iter().map(UnitRow::from).collect(),
        }
    }
}

impl<'a> From<&'a PlannedUnit> for UnitRow<'a> {
    fn from(unit: &'a PlannedUnit) -> Self {
        let machine = |machine: &'a PlannedMachine| MachineRow {
            machine: &machine.machine_id,
            ip: &machine.primary_ip,
            action: &machine.action,
            reason: &machine.reason,
        };
        Self {
            name: &unit.name,
            error: unit.error.as_deref(),
            action: Some(unit.action.as_str()).filter(|action| !action.is_empty()),
            effect: unit.effect.as_deref(),
            reason: &unit.reason,
            notes: &unit.notes,
            batches: unit.batches.as_ref(),
            stops: unit.stops.as_ref(),
            machines: unit.machines.iter().map(machine).collect(),
        }
    }
}
