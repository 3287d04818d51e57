//! stop, unload, destroy: stop units of the registry, and remove them from machines.

use anyhow::{Context as _, anyhow};
use clap::Args;
use fleet_core::api::Unit;
use fleet_core::unit::{TargetState, UnitName};

use super::batch::{Batch, before_any};
use super::blocking::Blocking;
use crate::client::Client;
use crate::options::is_global;
use crate::output::{say, talk};
use crate::select::{Known, Unknown, known_units};

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl stop hello.service
  fleetctl stop 'web@*'")]
pub(crate) struct Stop {
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
    #[command(flatten)]
    _blocking: Blocking,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl destroy hello.service
  fleetctl destroy 'web@*'")]
pub(crate) struct Destroy {
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
}

impl Stop {
    /// Lowers the target state to `target`: loaded to stop units, inactive to unload them.
    pub(super) async fn run(self, client: &mut Client, target: TargetState) -> anyhow::Result<()> {
        let (verb, done, failed) = match target {
            TargetState::Loaded => ("stop", "stopped", "Error stopping units"),
            _ => ("unload", "unloaded", "Error unloading units"),
        };
        let Some(Known { units, unknown }) = named(client, &self.names).await? else {
            return Ok(());
        };
        let any = !units.is_empty();
        tell_unknown(&unknown, any);
        if !any {
            return Ok(());
        }
        if let Some(unit) = units.iter().find(|unit| is_below(unit, target)) {
            let refused = anyhow!(
                "Unable to {verb} unit {} in state {}",
                unit.name,
                unit.desired_state
            );
            let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
            return Err(before_any(refused, &names, done));
        }
        let take_back = async |client: &mut Client, unit: &Unit| {
            if unit.desired_state != target.as_str() {
                let name = UnitName::parse(&unit.name)?;
                client.put_unit(&name, None, target, None).await?;
            }
            Ok(())
        };
        let mut batch = Batch::default();
        let results = client.each(&units, take_back).await;
        for (unit, result) in units.iter().zip(results) {
            let taken_back = batch.note(&unit.name, result).is_some();
            if taken_back && is_global(&unit.options) {
                say(format_args!("Triggered global unit {} {verb}", unit.name))?;
            }
        }
        batch.finish(failed, done)?;
        let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        talk(format_args!(
            "Successfully {done} units [{}].",
            names.join(" ")
        ));
        Ok(())
    }
}

impl Destroy {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let Some(known) = named(client, &self.names).await? else {
            return Ok(());
        };
        // A unit that fleetd cannot read is in no listing. Destroying it is the way to get rid of
        // it.
        let listed = known.units.iter().map(|unit| &unit.name);
        let names: Vec<&String> = listed
            .chain(known.unknown.iter().map(|unit| &unit.name))
            .collect();
        let destroy = async |client: &mut Client, name: &String| {
            let destroyed = client.destroy_unit(name).await;
            destroyed.map_err(anyhow::Error::from)
        };
        let (mut batch, mut gone) = (Batch::default(), Vec::new());
        let results = client.each(names.iter().copied(), destroy).await;
        for (name, result) in names.iter().copied().zip(results) {
            match batch.note(name, result) {
                Some(true) => say(format_args!("Destroyed {name}"))?,
                Some(false) => gone.push(name),
                None => {}
            }
        }
        let none = gone.len() == names.len();
        // Another client destroyed a listed unit in the meantime. Its name was spelt correctly.
        let unlisted = |name: &String| known.unknown.iter().find(|unit| unit.name == *name);
        let unknown: Vec<Unknown> = gone
            .into_iter()
            .map(|name| {
                unlisted(name)
                    .cloned()
                    .unwrap_or_else(|| Unknown::among(name.clone(), []))
            })
            .collect();
        tell_unknown(&unknown, !none);
        batch.finish("Error destroying units", "destroyed")
    }
}

/// Returns whether the unit is below `target` already. Stopping an inactive unit would load it.
fn is_below(unit: &Unit, target: TargetState) -> bool {
    TargetState::parse(&unit.desired_state).is_some_and(|state| state < target)
}

/// Returns the units that the arguments name. `None` without arguments.
async fn named(client: &mut Client, arguments: &[String]) -> anyhow::Result<Option<Known>> {
    if arguments.is_empty() {
        talk("No units given");
        return Ok(None);
    }
    let units = client
        .units()
        .await
        .context("Error retrieving list of units from repository")?;
    known_units(units, arguments).map(Some)
}

/// Prints the unknown units. They are no error, because they are as gone as requested. But they may
/// be misspelt.
fn tell_unknown(unknown: &[Unknown], any_known: bool) {
    if !any_known {
        talk("Units not found in registry");
    }
    for unit in unknown {
        let (name, hint) = (&unit.name, unit.hint());
        if any_known || !hint.is_empty() {
            talk(format_args!("Unit {name} not found in registry{hint}"));
        }
    }
}
