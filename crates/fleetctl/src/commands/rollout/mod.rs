//! rollout: the progress of an update, its revisions, and orders about it. restart is one such
//! order.

mod document;
mod history;
mod restart;
mod standing;
mod status;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fleet_core::api::{OrderAction, OrderBody, RolloutStatus};

pub(crate) use self::restart::Restart;
use super::missing::no_such_unit;
use crate::client::Client;
use crate::describe;
use crate::local::typed_name;
use crate::output::say;
use crate::paint::Paint;

#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl start --replace web.service && fleetctl rollout status --watch web.service
  fleetctl rollout pause web.service
  fleetctl rollout undo --to 3 web.service")]
pub(crate) struct Rollout {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show an update; with --watch, until it ends
    Status(status::Status),
    /// List the revisions of a unit, or print one
    History(history::History),
    /// Pause an update until it is resumed, undone or replaced
    #[command(after_help = "Example:
  fleetctl rollout pause web.service")]
    Pause(Named),
    /// Continue a paused update, even if machines failed
    #[command(after_help = "Example:
  fleetctl rollout resume web.service")]
    Resume(Named),
    /// Undo an update; without one, roll out the previous stable revision
    #[command(after_help = "Examples:
  fleetctl rollout undo web.service
  fleetctl rollout undo --to 3 web.service")]
    Undo(Undo),
    /// Restart a unit on every machine, within its budget, as a new revision with the same content
    #[command(after_help = "Example:
  fleetctl rollout restart web.service")]
    Restart(Named),
}

#[derive(Args)]
struct Named {
    /// The name of a unit in the registry
    unit: String,
}

#[derive(Args)]
struct Undo {
    /// Roll out the content of this revision instead; `fleetctl rollout history` lists them
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    #[command(flatten)]
    named: Named,
}

impl Rollout {
    pub(super) async fn run(self, client: &mut Client, paint: Paint) -> anyhow::Result<ExitCode> {
        let (action, to, named) = match self.verb {
            Verb::Status(status) => return status.run(client, paint).await,
            Verb::History(history) => return history.run(client, paint).await,
            Verb::Pause(named) => (OrderAction::Pause, None, named),
            Verb::Resume(named) => (OrderAction::Resume, None, named),
            Verb::Undo(undo) => (OrderAction::Undo, undo.to, undo.named),
            Verb::Restart(named) => (OrderAction::Restart, None, named),
        };
        let name = typed_name(&named.unit)?;
        let answer = client.order(name.as_str(), &OrderBody { action, to }).await;
        match answer.with_context(|| format!("Error changing the rollout of {name}"))? {
            Some(status) => say(ordered(action, &status)).map(|()| ExitCode::SUCCESS),
            None => no_such_unit(client, &name).await,
        }
    }
}

/// Returns the effect of an order in one line.
fn ordered(action: OrderAction, status: &RolloutStatus) -> String {
    let row = &status.row;
    let (unit, stable) = (&row.unit, row.revision);
    let verb = match action {
        OrderAction::Pause => "paused",
        OrderAction::Resume => "resumed",
        OrderAction::Undo => "undone",
        OrderAction::Restart => "restarts",
    };
    let stands = match (row.candidate, row.phase.as_str()) {
        (Some(candidate), "rolling-back") => {
            format!("revision {candidate} is being rolled back to {stable}")
        }
        (Some(candidate), "paused") => {
            let (there, all) = (row.up_to_date, describe::count(row.desired));
            format!("revision {candidate} is on {there} of {all} and goes no further")
        }
        (Some(candidate), _) => format!("revision {candidate} is being rolled out"),
        (None, _) => format!("revision {stable} is stable"),
    };
    format!("{unit} {verb}: {stands}")
}
