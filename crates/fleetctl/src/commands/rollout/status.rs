//! rollout status: the progress of an update, and its end.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use fleet_core::api::{RolloutMachine, RolloutStatus};
use fleet_core::unit::TargetState;

use super::super::missing::no_such_unit;
use super::document::RolloutDocument;
use super::standing::{Class, Standing, classes};
use crate::client::Client;
use crate::describe;
use crate::document::{self, Syntax};
use crate::exit;
use crate::go_flags::duration;
use crate::local::typed_name;
use crate::output::{printable, talk};
use crate::paint::{self, Paint};
use crate::watch::{Found, Look, show_until};

/// The time to collect changes. Many machines report within the same few milliseconds, and one
/// update of the display is enough for all.
const GATHER: Duration = Duration::from_millis(50);

/// The width of a progress bar.
const BAR: usize = 40;

#[derive(Args)]
#[command(after_help = "Exit codes:
  0  the newest revision is stable, and no machine is moving to it
  1  fleetd does not answer, or refuses
  3  the newest revision is stable, but the unit belongs on no machine
  4  there is no such unit
  5  it is in progress
  6  it is paused until `rollout resume` or `rollout undo`
  7  the newest revision was rolled back, or is being rolled back

With --watch it ends with 0, 6 or 7, and with 5 when --timeout is up. On a terminal it shows the
state of the machines; elsewhere it prints a line for each change.

Examples:
  fleetctl rollout status web.service
  fleetctl rollout status --watch --timeout 15m web.service")]
pub(super) struct Status {
    /// The name of a unit in the registry
    unit: String,
    /// Follow the update until it is over
    #[arg(long, short)]
    watch: bool,
    /// Follow it no longer than this, such as 90s or 15m
    #[arg(long, value_name = "TIME", requires = "watch", value_parser = duration)]
    timeout: Option<Duration>,
    /// Print a document for programs
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Syntax>,
}

impl Status {
    pub(super) async fn run(self, client: &mut Client, paint: Paint) -> anyhow::Result<ExitCode> {
        let name = typed_name(&self.unit)?;
        let retrieving = || format!("Error retrieving the rollout of {name}");
        let first = client.rollout(name.as_str(), None).await;
        let Some(first) = first.with_context(retrieving)? else {
            return no_such_unit(client, &name).await;
        };
        let mut standing = Some(Standing::of(&first));
        let mut nowhere = belongs_nowhere(&first);
        let mut after = first.registry_revision;
        let mut first = Some(first);
        let mut shown = String::new();
        let look = async |look| {
            let status = match (look, first.take()) {
                (Look::First, Some(status)) => Some(status),
                _ => {
                    tokio::time::sleep(GATHER).await;
                    let answer = client.rollout(name.as_str(), Some(after)).await;
                    answer.with_context(retrieving)?
                }
            };
            standing = status.as_ref().map(Standing::of);
            if let Some(status) = status {
                nowhere = belongs_nowhere(&status);
                after = status.registry_revision;
                shown = self.text(status, paint)?;
            }
            Ok(Found {
                text: shown.clone(),
                end: standing.is_none_or(Standing::is_end).then_some(()),
            })
        };
        let watched = show_until(self.watch, look);
        match self.timeout {
            None => watched.await.map(drop)?,
            Some(timeout) => match tokio::time::timeout(timeout, watched).await {
                Ok(watched) => watched.map(drop)?,
                Err(_elapsed) => talk(format_args!(
                    "{name}: not over after {}",
                    humantime::format_duration(timeout)
                )),
            },
        }
        Ok(match standing {
            None => {
                talk(format_args!("{name} was destroyed meanwhile"));
                exit::NO_SUCH_UNIT.into()
            }
            Some(Standing::Done) if nowhere => exit::NOT_ACTIVE.into(),
            Some(Standing::Done) => ExitCode::SUCCESS,
            Some(Standing::Rolling) => exit::ROLLING.into(),
            Some(Standing::Paused) => exit::PAUSED.into(),
            Some(Standing::RollingBack | Standing::RolledBack) => exit::ROLLED_BACK.into(),
        })
    }

    fn text(&self, status: RolloutStatus, paint: Paint) -> anyhow::Result<String> {
        if let Some(syntax) = self.output {
            return document::one("RolloutStatus", &RolloutDocument::from(status), syntax);
        }
        let headline = printable(&headline(&status));
        Ok(if !self.watch {
            lines([headline].into_iter().chain(machine_lines(&status, paint)))
        } else if io::stdout().is_terminal() {
            let done = classes(&status).get(&Class::Done).map_or(0, Vec::len);
            let bar = bar(done, status.row.desired);
            lines(
                [headline, bar]
                    .into_iter()
                    .chain(machine_lines(&status, paint)),
            )
        } else {
            headline + "\n"
        })
    }
}

/// Returns whether the unit should run, but no machine has it or will take it later.
fn belongs_nowhere(status: &RolloutStatus) -> bool {
    let row = &status.row;
    row.desired_state == TargetState::Launched.as_str() && row.desired == 0 && row.deferred == 0
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

/// Returns the update's state, its reason, and the awaited machines in one line.
fn headline(status: &RolloutStatus) -> String {
    let row = &status.row;
    let (unit, stable) = (&row.unit, row.revision);
    let newest = row.candidate.unwrap_or(stable);
    let waits = status.waits.as_ref().map_or_else(String::new, |waits| {
        // The line already begins with these words.
        let waits = waits.strip_prefix("rolling back; ").unwrap_or(waits);
        format!("; {waits}")
    });
    let launched = row.desired_state == TargetState::Launched.as_str();
    let there = match row.desired_state.as_str() {
        _ if belongs_nowhere(status) => "but it belongs on no machine".to_owned(),
        _ if launched => format!(
            "available on {} of {}",
            row.available,
            describe::count(row.desired)
        ),
        target => format!("its target state is {target}"),
    };
    match Standing::of(status) {
        Standing::Done => format!("{unit}: revision {stable} is stable, {there}"),
        Standing::Rolling if row.candidate.is_none() => {
            format!("{unit}: revision {stable} is stable, {there} so far{waits}")
        }
        Standing::Rolling => format!("{unit}: revision {newest} is being rolled out{waits}"),
        Standing::Paused => format!(
            "{unit}: revision {newest} is paused on {} of {}: {}",
            row.up_to_date,
            describe::count(row.desired),
            row.reason
        ),
        Standing::RollingBack => format!(
            "{unit}: revision {newest} is being rolled back to {stable}: {}{waits}",
            row.reason
        ),
        Standing::RolledBack => {
            let last = status.last.as_ref();
            let (number, why) = last.map_or((0, ""), |last| (last.revision, &last.reason));
            format!(
                "{unit}: revision {number} was rolled back: {why}; revision {stable} is stable, {there}"
            )
        }
    }
}

/// Returns one line for each class of machines, and one for each machine that failed.
fn machine_lines(status: &RolloutStatus, paint: Paint) -> Vec<String> {
    let classes = classes(status);
    let mut lines = Vec::new();
    for (class, machines) in &classes {
        let style = paint::class(class.as_str());
        let count = format!("{:<9} {:>5}", class.as_str(), machines.len());
        let named = match class {
            Class::Deferred => why_deferred(machines),
            _ => describe::machines(machines.iter().map(|it| &*it.machine_id), false),
        };
        lines.push(format!(
            "  {}  {}",
            paint.text(style, &count),
            printable(&named)
        ));
        if *class == Class::Failed {
            lines.extend(machines.iter().take(FAILURES).map(|machine| {
                let id = describe::short_id(&machine.machine_id);
                let why = machine.failed.as_deref().unwrap_or_default();
                printable(&format!("    {id}: {why}"))
            }));
        }
    }
    lines
}

/// The number of failures that are printed in full.
const FAILURES: usize = 5;

/// Returns why machines are deferred, unless obvious: `3f3fab35... (offline), 631e82f9...
/// (cordoned)`.
fn why_deferred(machines: &[&RolloutMachine]) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for machine in machines {
        let reason = match (&machine.scheduling, machine.live) {
            (_, false) => "offline",
            (Some(scheduling), true) => scheduling,
            (None, true) => "missed it, and waits for its turn",
        };
        reasons.entry(reason).or_default().push(&machine.machine_id);
    }
    let told = reasons
        .into_iter()
        .map(|(reason, ids)| format!("{} ({reason})", describe::machines(ids, false)));
    told.collect::<Vec<_>>().join(", ")
}

/// Returns a progress bar: `[####------] 2 of 5 machines`.
fn bar(done: usize, all: usize) -> String {
    let filled = (done * BAR).checked_div(all).unwrap_or(BAR);
    let machines = describe::count(all);
    format!(
        "  [{}{}] {done} of {machines}",
        "#".repeat(filled),
        "-".repeat(BAR - filled)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_shows_the_share_of_done_machines() {
        assert_eq!(bar(0, 3), format!("  [{}] 0 of 3 machines", "-".repeat(40)));
        let half = format!("  [{}{}] 1 of 2 machines", "#".repeat(20), "-".repeat(20));
        assert_eq!(bar(1, 2), half);
        assert_eq!(bar(0, 0), format!("  [{}] 0 of 0 machines", "#".repeat(40)));
    }

    #[test]
    fn deferred_machine_is_named_with_its_reason() {
        let machine = |id: &str, live, scheduling: Option<&str>| RolloutMachine {
            machine_id: id.repeat(32),
            live,
            scheduling: scheduling.map(str::to_owned),
            ..RolloutMachine::default()
        };
        let (one, two) = (
            machine("1", false, None),
            machine("2", true, Some("cordoned")),
        );
        let three = machine("3", false, None);
        assert_eq!(
            why_deferred(&[&one, &two, &three]),
            "22222222... (cordoned), 11111111..., 33333333... (offline)"
        );
    }
}
