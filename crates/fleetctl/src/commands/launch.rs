//! submit, load, start: bring units into the registry and on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use fleet_core::api::UnitStatus;
use fleet_core::record::TargetState;
use fleet_core::unit::UnitName;

use crate::client::Client;
use crate::output::{say, talk};
use crate::resolve::{Decision, Registered, Sources, decide};
use crate::wait;

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
  fleetctl start --wait=30s web@blue.service")]
pub(crate) struct Start {
    #[command(flatten)]
    units: Units,
    /// Wait until the units are ready on every machine where they belong, two minutes unless told
    #[arg(long, value_name = "TIMEOUT", num_args = 0..=1, require_equals = true,
          default_missing_value = wait::DEFAULT_TIMEOUT, value_parser = humantime::parse_duration,
          conflicts_with = "no_block")]
    wait: Option<Duration>,
    #[command(flatten)]
    _blocking: Blocking,
}

#[derive(Args)]
struct Units {
    /// Update units that are in the registry already from the local files
    #[arg(long)]
    replace: bool,
    #[arg(long, hide = true)]
    sign: bool,
    /// Names of units in the registry, or paths of unit files; `.service` may be left out
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
}

/// Flags of fleet 1.0, which never applied to global units.
#[derive(Args)]
pub(super) struct Blocking {
    /// Do not wait, which is so anyway
    #[arg(long)]
    no_block: bool,
    #[arg(long, value_name = "N", hide = true)]
    block_attempts: Option<i64>,
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

/// A unit that is in the registry, on its way to the target.
struct Brought {
    name: UnitName,
    state: Registered,
    written: bool,
}

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
    let decided = decide_all(client, units, target)
        .await
        .context("Error creating units")?;

    let verb = match target {
        TargetState::Inactive => "submit",
        TargetState::Loaded => "load",
        TargetState::Launched => "start",
    };
    let activating = match target {
        TargetState::Launched => "Error starting units",
        _ => "Error loading units",
    };
    if target > TargetState::Inactive
        && let Some((name, ..)) = decided.iter().find(|(name, ..)| name.is_template())
    {
        return Err(anyhow!("cannot activate template \"{name}\"")).context(activating);
    }

    let mut before = BTreeMap::new();
    if wait.is_some() {
        for (name, registered, _) in &decided {
            if registered.is_some()
                && let Some(status) = client
                    .unit_status(name.as_str(), None)
                    .await
                    .context(activating)?
            {
                before.insert(name.clone(), status);
            }
        }
    }

    // All content is accepted before anything starts, so that a bad last file leaves nothing half started.
    let mut brought = Vec::new();
    for (name, registered, decision) in decided {
        brought.push(
            write(client, name, registered, decision)
                .await
                .context("Error creating units")?,
        );
    }
    for unit in &brought {
        if target > TargetState::Inactive {
            activate(client, unit, target, verb)
                .await
                .context(activating)?;
        }
    }
    if let Some(timeout) = wait {
        let changed = |unit: &&Brought| unit.written || unit.state.target != target;
        let before = keep(before, brought.iter().filter(changed));
        let names: Vec<UnitName> = brought.into_iter().map(|unit| unit.name).collect();
        wait::until_ready(client, &names, &before, timeout).await?;
    }
    Ok(())
}

fn keep<'a>(
    mut statuses: BTreeMap<UnitName, UnitStatus>,
    of: impl Iterator<Item = &'a Brought>,
) -> BTreeMap<UnitName, UnitStatus> {
    let names: BTreeSet<&UnitName> = of.map(|unit| &unit.name).collect();
    statuses.retain(|name, _| names.contains(name));
    statuses
}

/// Decides for every unit before anything is changed. A unit named twice counts once.
async fn decide_all(
    client: &mut Client,
    units: &Units,
    target: TargetState,
) -> anyhow::Result<Vec<(UnitName, Option<Registered>, Decision)>> {
    let mut decided: Vec<(UnitName, Option<Registered>, Decision)> = Vec::new();
    for argument in &units.names {
        let sources = Sources::look_up(client, argument).await?;
        let (name, registered) = (sources.name.clone(), sources.registered.clone());
        if decided.iter().all(|(known, ..)| *known != name) {
            let decision = decide(sources, target, units.replace)?;
            decided.push((name, registered, decision));
        }
    }
    Ok(decided)
}

/// Brings the registry's content of a unit up to date.
async fn write(
    client: &mut Client,
    name: UnitName,
    registered: Option<Registered>,
    decision: Decision,
) -> anyhow::Result<Brought> {
    let written = match decision {
        Decision::Write(content) => {
            // A unit that runs goes on running: its target state stays while its content changes.
            let target = registered
                .as_ref()
                .map_or(TargetState::Inactive, |unit| unit.target);
            client
                .put_unit(&name, Some(content), target)
                .await
                .with_context(|| format!("failed creating unit {name}"))?;
            true
        }
        Decision::Keep => false,
        Decision::Same => {
            say(format_args!(
                "Found same Unit({name}) in Registry, nothing to do"
            ))?;
            false
        }
        Decision::KeepWithWarning(warning) => {
            talk(warning);
            false
        }
    };
    let registered = match registered {
        Some(registered) if !written => Some(registered),
        _ => Registered::get(client, &name).await?,
    };
    let state = registered.with_context(|| format!("unit {name} was destroyed meanwhile"))?;
    if written {
        let of_others = if state.global { "" } else { "inactive" };
        say(format_args!("Unit {name} {of_others}"))?;
    }
    Ok(Brought {
        name,
        state,
        written,
    })
}

/// Sets the target state of a unit, unless it has it already.
async fn activate(
    client: &mut Client,
    unit: &Brought,
    target: TargetState,
    verb: &str,
) -> anyhow::Result<()> {
    let name = &unit.name;
    if unit.state.target != target {
        client.put_unit(name, None, target).await?;
    } else if !unit.written {
        return Ok(());
    }
    let global = if unit.state.global { "global " } else { "" };
    say(format_args!("Triggered {global}unit {name} {verb}"))?;
    Ok(())
}
