//! restart: restart units on every machine, within their budgets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use fleet_core::api::{OrderAction, OrderBody, UnitStatus};
use fleet_core::unit::UnitName;

use super::super::batch::Batch;
use super::super::blocking::Blocking;
use super::super::rolling::tell_rolling;
use crate::client::Client;
use crate::go_flags::duration;
use crate::output::{say, talk};
use crate::select::known_units;
use crate::wait::{self, Goal, Waiting};

#[derive(Args)]
#[command(
    after_help = "A restart is rolled out like an update, a few machines at a time (MaxUnavailable=). Each is watched
until the unit is available. If it fails, the restart is rolled back or paused (OnFailure=).

Examples:
  fleetctl restart web.service
  fleetctl restart --wait=10m 'web@*'"
)]
pub(crate) struct Restart {
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
    /// Wait until the units are ready again on every machine where they belong, two minutes by
    /// default
    #[arg(long, value_name = "TIMEOUT", num_args = 0..=1, require_equals = true,
          default_missing_value = wait::DEFAULT_TIMEOUT, value_parser = duration,
          conflicts_with = "no_block")]
    wait: Option<Duration>,
    #[command(flatten)]
    _blocking: Blocking,
}

impl Restart {
    pub(in crate::commands) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        if self.names.is_empty() {
            talk("No units given");
            return Ok(());
        }
        let units = client.units().await;
        let units = units.context("Error retrieving list of units from repository")?;
        let known = known_units(units, &self.names)?;
        if let Some(unknown) = known.unknown.first() {
            bail!(
                "Error restarting units: unable to find Unit({}) in Registry{}",
                unknown.name,
                unknown.hint()
            );
        }
        let mut batch = Batch::default();
        let (mut names, mut before) = (Vec::new(), BTreeMap::new());
        let results = client.each(&known.units, async |client, unit| {
            restart(client, UnitName::parse(&unit.name)?).await
        });
        for (unit, result) in known.units.iter().zip(results.await) {
            if let Some((name, status)) = batch.note(&unit.name, result) {
                say(format_args!("Triggered global unit {name} restart"))?;
                before.insert(name.clone(), status);
                names.push(name);
            }
        }
        batch.finish("Error restarting units", "restarted")?;
        let Some(timeout) = self.wait else {
            tell_rolling(client, &names).await;
            return Ok(());
        };
        let waiting = Waiting {
            goal: Goal::Ready,
            timeout,
            started: true,
            before: &before,
        };
        waiting.run(client, &names).await
    }
}

/// Orders the restart. Returns the unit's status from before.
async fn restart(client: &mut Client, name: UnitName) -> anyhow::Result<(UnitName, UnitStatus)> {
    let gone = || anyhow!("{name} was destroyed meanwhile");
    let before = client.unit_status(name.as_str(), None).await?;
    let before = before.ok_or_else(gone)?;
    let order = OrderBody {
        action: OrderAction::Restart,
        to: None,
    };
    client
        .order(name.as_str(), &order)
        .await?
        .ok_or_else(gone)?;
    Ok((name, before))
}
