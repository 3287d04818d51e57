//! submit, load, start: add units to the registry and set their target state.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueHint};
use fleet_core::api::{PlannedMachine, UnitStatus};
use fleet_core::submission::may_become;
use fleet_core::unit::{InvalidUnit, OptionsError, Parsed, TargetState, UnitName};

use super::batch::{Batch, before_any};
use super::blocking::Blocking;
use super::rolling::{tell_down, tell_rolling};
use crate::client::Client;
use crate::describe;
use crate::go_flags::duration;
use crate::manifest::{self, Argument, Converted, port_clashes};
use crate::output::{say, talk};
use crate::resolve::{Decision, Registered, ResolveError, Sources, decide};
use crate::select::Unknown;
use crate::wait::{self, Goal, Waiting};

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl submit hello.service
  fleetctl submit --replace units/*.service")]
pub(crate) struct Submit {
    #[command(flatten)]
    units: Units,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl load hello.service
  fleetctl load web@1.service     # takes the content of web@.service")]
pub(crate) struct Load {
    #[command(flatten)]
    units: Units,
    #[command(flatten)]
    _blocking: Blocking,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl start hello.service
  fleetctl start --wait --replace units/*.service
  fleetctl start --wait=30s web@blue.service
  fleetctl start app-a.yaml       # a DaemonSet, converted as by `fleetctl import`")]
pub(crate) struct Start {
    #[command(flatten)]
    units: Units,
    /// Wait until the units are ready on every machine where they belong, two minutes by default
    #[arg(long, value_name = "TIMEOUT", num_args = 0..=1, require_equals = true,
          default_missing_value = wait::DEFAULT_TIMEOUT, value_parser = duration,
          conflicts_with = "no_block")]
    wait: Option<Duration>,
    #[command(flatten)]
    _blocking: Blocking,
}

#[derive(Args)]
struct Units {
    /// Update units that are already in the registry from the local files
    #[arg(long)]
    replace: bool,
    /// Replace a revision even if it is newer than the compared one, and even if no machine would
    /// run the unit any more
    #[arg(long, requires = "replace")]
    force: bool,
    #[arg(long, hide = true)]
    sign: bool,
    /// Names of units in the registry, or paths of unit files or DaemonSet manifests (.yaml);
    /// `.service` may be left out
    #[arg(value_name = "UNIT", value_hint = ValueHint::FilePath)]
    names: Vec<String>,
}

impl Submit {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        bring(client, &self.units, TargetState::Inactive, None).await
    }
}

impl Load {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        bring(client, &self.units, TargetState::Loaded, None).await
    }
}

impl Start {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        bring(client, &self.units, TargetState::Launched, self.wait).await
    }
}

/// A unit named on the command line, with the decision about it.
struct Planned {
    name: UnitName,
    global: bool,
    /// Whether its new content has `Conflicts=`.
    excludes: bool,
    registered: Option<Registered>,
    decision: Decision,
}

impl Planned {
    fn changes(&self, target: TargetState) -> bool {
        let state = self.registered.as_ref().map(|unit| unit.target);
        matches!(self.decision, Decision::Write(_)) || state != Some(target)
    }

    /// Prints the decision, once it is done.
    fn tell(&self) -> anyhow::Result<()> {
        let name = &self.name;
        match &self.decision {
            Decision::Keep => Ok(()),
            Decision::Same => say(format_args!(
                "Found same Unit({name}) in Registry, nothing to do"
            )),
            Decision::KeepWithWarning(warning) => {
                talk(warning);
                Ok(())
            }
            // Byte for byte as in fleet 1.0: a global unit has a blank where other units have their
            // state.
            Decision::Write(_) if self.global => say(format_args!("Unit {name} ")),
            Decision::Write(_) => say(format_args!("Unit {name} inactive")),
        }
    }
}

/// A unit whose content is in the registry.
struct Brought {
    name: UnitName,
    target: TargetState,
    global: bool,
    written: bool,
}

/// Adds units to the registry, then sets the target state. All content is in the registry before
/// anything starts, so a refusal by fleetd leaves nothing half started.
async fn bring(
    client: &mut Client,
    units: &Units,
    target: TargetState,
    wait: Option<Duration>,
) -> anyhow::Result<()> {
    if units.sign {
        talk("WARNING: signed units are gone for good; --sign does nothing");
    }
    if units.names.is_empty() {
        talk("No units given");
        return Ok(());
    }
    let creating = "Error creating units";
    let (verb, done, activating) = match target {
        TargetState::Inactive => ("submit", "submitted", creating),
        TargetState::Loaded => ("load", "loaded", "Error loading units"),
        TargetState::Launched => ("start", "started", "Error starting units"),
    };
    let names: Vec<&str> = units.names.iter().map(String::as_str).collect();
    let refused = |why| before_any(why, &names, done);
    let planned = plan(client, units, target).await;
    let planned = planned.context(creating).map_err(refused)?;
    for unit in &planned {
        let may = may_become(&unit.name, unit.global, target);
        may.context(activating).map_err(refused)?;
    }

    if !units.force {
        let kept = refuse_nowhere(client, &planned).await;
        kept.context(creating).map_err(refused)?;
    }
    let before = if wait.is_some() {
        statuses(client, &planned, target)
            .await
            .context(activating)?
    } else {
        BTreeMap::new()
    };
    // systemd must know a unit's requirements when it starts, whatever their order on the command
    // line.
    let first = if target == TargetState::Launched && planned.len() > 1 {
        TargetState::Loaded
    } else {
        TargetState::Inactive
    };
    let mut batch = Batch::default();
    let force = units.force;
    let write = async |client: &mut Client, unit| write(client, unit, first, force).await;
    // If units conflict, the one created first runs. It must be the one named first.
    let results = if planned.iter().any(|unit| unit.excludes) {
        client.each_in_turn(&planned, write).await
    } else {
        client.each(&planned, write).await
    };
    let mut brought = Vec::new();
    for (unit, result) in planned.iter().zip(results) {
        if let Some(done) = batch.note(&unit.name, result) {
            unit.tell()?;
            brought.push(done);
        }
    }
    batch.finish(creating, "submitted")?;
    if target == TargetState::Inactive {
        return Ok(());
    }
    let results = client.each(&brought, async |client, unit| {
        activate(client, unit, target).await
    });
    let mut batch = Batch::default();
    let mut unchanged = Vec::new();
    for (unit, result) in brought.iter().zip(results.await) {
        match batch.note(&unit.name, result) {
            Some(true) => {
                let global = if unit.global { "global " } else { "" };
                say(format_args!("Triggered {global}unit {} {verb}", unit.name))?;
            }
            Some(false) => unchanged.push(unit.name.clone()),
            None => {}
        }
    }
    batch.finish(activating, done)?;
    if target == TargetState::Launched && wait.is_none() {
        tell_down(client, &unchanged).await;
    }
    let Some(timeout) = wait else {
        let replaced = brought.into_iter().filter(|unit| unit.written);
        let replaced: Vec<UnitName> = replaced.map(|unit| unit.name).collect();
        tell_rolling(client, &replaced).await;
        return Ok(());
    };
    let names: Vec<UnitName> = brought.into_iter().map(|unit| unit.name).collect();
    let waiting = Waiting {
        goal: Goal::Ready,
        timeout,
        started: true,
        before: &before,
    };
    waiting.run(client, &names).await
}

/// Returns the statuses of the units that will change, from before the change.
async fn statuses(
    client: &mut Client,
    planned: &[Planned],
    target: TargetState,
) -> anyhow::Result<BTreeMap<UnitName, UnitStatus>> {
    let changing = planned.iter().filter(|unit| unit.changes(target));
    let ask = async |client: &mut Client, unit: &Planned| {
        let status = client.unit_status(unit.name.as_str(), None).await?;
        Ok(status.map(|status| (unit.name.clone(), status)))
    };
    let statuses: anyhow::Result<Vec<_>> = client.each(changing, ask).await.into_iter().collect();
    Ok(statuses?.into_iter().flatten().collect())
}

/// Decides for every unit and checks its content before anything is changed. A unit named twice
/// counts once.
async fn plan(
    client: &mut Client,
    units: &Units,
    target: TargetState,
) -> anyhow::Result<Vec<Planned>> {
    let mut planned: Vec<Planned> = Vec::new();
    let arguments = manifest::arguments(&units.names)?;
    warn_of_ports(client, &arguments).await?;
    let look_up = async |client: &mut Client, argument: &Argument| {
        let sources = Sources::look_up(client, argument).await;
        sources.map_err(anyhow::Error::from)
    };
    for sources in client.each(&arguments, look_up).await {
        let sources = sources?;
        let (name, registered) = (sources.name.clone(), sources.registered.clone());
        if planned.iter().any(|unit| unit.name == name) {
            continue;
        }
        let decision = match decide(sources, target, units.replace) {
            Err(missing @ ResolveError::Missing(_)) => {
                let similar = Unknown::among(name.to_string(), &client.units().await?);
                bail!("{missing}{}", similar.hint());
            }
            decided => decided?,
        };
        let (global, excludes) = match (&decision, &registered) {
            (Decision::Write(content), _) => {
                let parsed = Parsed::parse(name.clone(), content);
                parsed.validate().map_err(|error| refusal(&name, &error))?;
                let options = parsed.options;
                (options.global, !options.conflicts.is_empty())
            }
            (_, registered) => (registered.as_ref().is_some_and(|unit| unit.global), false),
        };
        planned.push(Planned {
            name,
            global,
            excludes,
            registered,
            decision,
        });
    }
    Ok(planned)
}

/// Warns of units of manifests that want a port that another unit has.
async fn warn_of_ports(client: &mut Client, arguments: &[Argument]) -> anyhow::Result<()> {
    let new = arguments.iter().filter_map(|argument| match argument {
        Argument::Converted(unit) => Some(unit),
        Argument::Typed(_) => None,
    });
    let new: Vec<&Converted> = new.collect();
    if !new.is_empty() {
        let registered = client.units().await?;
        for warning in port_clashes(&new, &registered) {
            talk(warning);
        }
    }
    Ok(())
}

/// Refuses an update that would take a unit that runs from every machine: a typing mistake in a
/// selector reads like that.
async fn refuse_nowhere(client: &mut Client, planned: &[Planned]) -> anyhow::Result<()> {
    let updates = planned.iter().filter_map(|unit| {
        let registered = unit.registered.as_ref()?;
        match &unit.decision {
            Decision::Write(content) if registered.target == TargetState::Launched => {
                Some((unit.name.clone(), content.clone()))
            }
            _ => None,
        }
    });
    let updates: Vec<_> = updates.collect();
    if updates.is_empty() {
        return Ok(());
    }
    // A server that cannot plan refuses or takes the update itself.
    let Ok(plan) = super::plan::ask(client, updates).await else {
        return Ok(());
    };
    let Some(unit) = plan.units.iter().find(|unit| unit.nowhere) else {
        return Ok(());
    };
    let stops = unit.machines.iter().filter(|it| it.action == "stop");
    let stops: Vec<&PlannedMachine> = stops.collect();
    let why = stops.first().map_or("", |machine| &machine.reason);
    let ids = stops.iter().map(|machine| machine.machine_id.as_str());
    bail!(
        "{} would run on no machine, and stop on {} ({}): {why}; fix its [X-Fleet] section, or pass --force",
        unit.name,
        describe::count(stops.len()),
        describe::machines(ids, false)
    )
}

/// Returns why a file is not submitted, with its name and line.
fn refusal(name: &UnitName, error: &InvalidUnit) -> anyhow::Error {
    match error {
        InvalidUnit::Options(OptionsError::Misread(_)) => anyhow!(error.for_unit(name)),
        worded => anyhow!("failed creating unit {name}: {worded}"),
    }
}

/// Writes a unit's new content, and sets a global unit at least to the target state `first`. Unless
/// `force` is set, it replaces only the revision that was compared with the file.
async fn write(
    client: &mut Client,
    unit: &Planned,
    first: TargetState,
    force: bool,
) -> anyhow::Result<Brought> {
    let name = &unit.name;
    // A running unit continues: its target state stays while its content changes.
    let registered = unit.registered.as_ref().map(|unit| unit.target);
    let mut target = registered.unwrap_or(TargetState::Inactive);
    if unit.global {
        target = target.max(first);
    }
    let content = match &unit.decision {
        Decision::Write(content) => Some(content.clone()),
        _ => None,
    };
    let written = content.is_some();
    if written || registered != Some(target) {
        let compared = unit.registered.as_ref().and_then(|unit| unit.revision);
        let replaces = compared.filter(|_| written && !force);
        let put = client.put_unit(name, content, target, replaces).await;
        if written {
            put.with_context(|| format!("failed creating unit {name}"))?;
        } else {
            put?;
        }
    }
    Ok(Brought {
        name: name.clone(),
        target,
        global: unit.global,
        written,
    })
}

/// Sets the target state of a unit, unless it has it already. Returns whether anything was done for
/// the unit.
async fn activate(
    client: &mut Client,
    unit: &Brought,
    target: TargetState,
) -> anyhow::Result<bool> {
    let changes = unit.target != target;
    if changes {
        client.put_unit(&unit.name, None, target, None).await?;
    }
    Ok(changes || unit.written)
}
