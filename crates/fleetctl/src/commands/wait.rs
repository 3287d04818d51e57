//! wait: waits until units are ready, active or gone.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use fleet_core::unit::UnitName;

use crate::client::Client;
use crate::exit;
use crate::go_flags::duration;
use crate::local::typed_name;
use crate::output::talk;
use crate::select::known_units;
use crate::wait::{DEFAULT_TIMEOUT, Goal, Waiting};

#[derive(Args)]
#[command(after_help = "States:
  ready   it runs or did its work on every machine where it belongs, and stays so
  active  systemd calls it active on every machine where it belongs
  gone    it is destroyed, and off every machine

It ends early if a unit has failed on every machine that lacks the state.

Exit codes:
  0  all units reached that state
  1  the time is up, or a unit failed
  3  a unit belongs on no machine
  4  a unit does not exist, except with --for=gone

Examples:
  fleetctl wait hello.service
  fleetctl wait --for=active --timeout=30s 'web@*'
  fleetctl destroy hello.service && fleetctl wait --for=gone hello.service")]
pub(crate) struct Wait {
    /// What to wait for
    #[arg(long = "for", value_name = "STATE", default_value = "ready")]
    goal: Goal,
    /// How long to wait, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = DEFAULT_TIMEOUT, value_parser = duration)]
    timeout: Duration,
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT", required = true)]
    names: Vec<String>,
}

impl Wait {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let units = client.units().await;
        let units = units.context("Error retrieving list of units from repository")?;
        let known = known_units(units, &self.names)?;
        let mut names = Vec::new();
        for unit in known.units {
            names.push(UnitName::parse(&unit.name)?);
        }
        if self.goal == Goal::Gone {
            // A unit that left the registry may still be on machines. A pattern without a match
            // names no unit.
            let unknown = known.unknown.iter().filter(|unit| !unit.is_pattern());
            for unit in unknown {
                names.push(typed_name(&unit.name)?);
            }
        } else if !known.unknown.is_empty() {
            for unit in &known.unknown {
                let (name, hint) = (&unit.name, unit.hint());
                talk(format_args!("unit {name} is not in the registry{hint}"));
            }
            return Ok(exit::NO_SUCH_UNIT.into());
        }
        let waiting = Waiting {
            goal: self.goal,
            timeout: self.timeout,
            started: false,
            before: &BTreeMap::new(),
        };
        waiting.run(client, &names).await?;
        Ok(ExitCode::SUCCESS)
    }
}
