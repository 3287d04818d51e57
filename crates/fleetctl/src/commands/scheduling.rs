//! cordon, uncordon, drain: limit which units start on a machine.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use fleet_core::api::Machine;
use fleet_core::machine::{MachineId, Scheduling};
use tokio::time::Instant;

use super::batch::Batch;
use crate::client::{Addresses, Client, StateRow};
use crate::describe;
use crate::go_flags::duration;
use crate::machine::find;
use crate::output::{say, talk};
use crate::wait;

/// The time between two reads of a drained machine's units. No long poll reports those.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Args)]
#[command(
    after_help = "On a cordoned machine, running units continue without updates, and no unit starts. No rollout waits
for the machine. Units with Tolerates=cordon start and are updated there.

Examples:
  fleetctl cordon 190c6f8f
  fleetctl list-machines
  fleetctl uncordon 190c6f8f"
)]
pub(crate) struct Cordon {
    #[command(flatten)]
    machines: Machines,
}

#[derive(Args)]
#[command(
    after_help = "On a drained machine, all units of fleet stop and none starts, until `fleetctl uncordon`. Other units
are left alone.

Examples:
  fleetctl drain --wait 190c6f8f && fleetctl ssh 190c6f8f reboot
  fleetctl uncordon 190c6f8f"
)]
pub(crate) struct Drain {
    #[command(flatten)]
    machines: Machines,
    /// Wait until no unit is left there, two minutes by default
    #[arg(long, value_name = "TIMEOUT", num_args = 0..=1, require_equals = true,
          default_missing_value = wait::DEFAULT_TIMEOUT, value_parser = duration)]
    wait: Option<Duration>,
}

#[derive(Args)]
struct Machines {
    /// Machine ids, or a unique beginning of each; the whole id for an offline machine
    #[arg(value_name = "MACHINE", required = true)]
    machines: Vec<String>,
}

impl Cordon {
    /// Cordons machines, or lifts a cordon or drain.
    pub(super) async fn run(self, client: &mut Client, to: Scheduling) -> anyhow::Result<()> {
        self.machines.schedule(client, to).await.map(drop)
    }
}

impl Drain {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let machines = self.machines.schedule(client, Scheduling::Drained).await?;
        match self.wait {
            Some(timeout) => empty(client, &machines, timeout).await,
            None => Ok(()),
        }
    }
}

impl Machines {
    /// Sets the limits on the machines. Returns the machines.
    async fn schedule(&self, client: &mut Client, to: Scheduling) -> anyhow::Result<Vec<Machine>> {
        let (changing, done) = match to {
            Scheduling::Normal => ("Error uncordoning machines", "uncordoned"),
            Scheduling::Cordoned => ("Error cordoning machines", "cordoned"),
            Scheduling::Drained => ("Error draining machines", "drained"),
        };
        let live = client.machines(false).await.context(changing)?;
        // All names are resolved before the first machine is changed.
        let named = self.machines.iter().map(|typed| named(&live, typed));
        let machines: Vec<Machine> = named.collect::<anyhow::Result<_>>().context(changing)?;
        let mut batch = Batch::default();
        let results = client.each(&machines, async |client, machine| {
            Ok(client.schedule(&machine.id, to).await?)
        });
        for (machine, result) in machines.iter().zip(results.await) {
            let id = describe::short_id(&machine.id);
            if batch.note(&id, result).is_some() {
                let already = if is(machine, to) { "already " } else { "" };
                say(format_args!("machine {id} {already}{done}"))?;
            }
        }
        batch.finish(changing, done)?;
        Ok(machines)
    }
}

fn is(machine: &Machine, scheduling: Scheduling) -> bool {
    match machine.scheduling.as_str() {
        "" => scheduling.is_normal(),
        word => word == scheduling.as_str(),
    }
}

/// Returns the named machine. An offline machine is in no list, but fleetd may know it.
fn named(live: &[Machine], typed: &str) -> anyhow::Result<Machine> {
    match (find(live, typed), MachineId::parse(typed)) {
        (Ok(machine), _) => Ok(machine.clone()),
        (Err(_), Ok(id)) => Ok(Machine {
            id: id.to_string(),
            // Its former limits are unknown here.
            scheduling: "offline".to_owned(),
            ..Machine::default()
        }),
        (Err(error), Err(_)) => Err(error.into()),
    }
}

/// Waits until the machines report no unit. An offline machine reports none.
async fn empty(client: &mut Client, machines: &[Machine], timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let ids: HashSet<String> = machines.iter().map(|machine| machine.id.clone()).collect();
    let ids = Arc::new(ids);
    loop {
        let ids = ids.clone();
        let still_on = move |state: StateRow<'_>, _: &Addresses| {
            let (id, active) = (&*state.machine_id, &state.systemd_active_state);
            ids.contains(id).then(|| {
                let id = describe::short_id(id);
                format!("{}: still on {id}, {active}", state.name)
            })
        };
        let left = client.states(false, still_on).await?;
        let left: Vec<String> = left.into_iter().flatten().collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            for unit in &left {
                talk(unit);
            }
            bail!(
                "not every unit is gone after {}",
                humantime::format_duration(timeout)
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_machine_needs_its_whole_id() {
        let id = "190c6f8fbbd25efb88aad49e6c499b79";
        let live = [Machine {
            id: "3f3fab35461707ed4699d4df0c87385e".into(),
            ..Machine::default()
        }];
        assert!(named(&live, "190c6f8f").is_err());
        assert_eq!(named(&live, id).expect("known to fleetd, perhaps").id, id);
        let found = named(&live, "3f3f").expect("it is live");
        assert_eq!(found.id, live[0].id);
    }
}
