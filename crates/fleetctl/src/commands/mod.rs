//! The commands, one file for each group of verbs.

mod accept_registry;
mod batch;
mod blocking;
mod cluster_text;
mod diff;
mod events;
mod explain;
mod fd_forward;
mod import;
mod journal;
mod launch;
mod list;
mod log_lines;
mod metadata;
mod missing;
mod plan;
mod rolling;
mod rollout;
mod rows;
mod scheduling;
mod show;
mod ssh;
mod status;
mod status_document;
mod stop;
mod wait;

pub(crate) use fd_forward::FdForward;
pub(crate) use import::Import;

use std::process::ExitCode;

use clap::Subcommand;
use fleet_core::machine::Scheduling;
use fleet_core::unit::TargetState;

use crate::client::Client;
use crate::listing::Listing;
use crate::paint::Paint;
use crate::remote::Ssh;

/// The commands that contact fleetd.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Upload units to the cluster without starting them
    Submit(launch::Submit),
    /// Put units on every machine where they belong, without starting them
    Load(launch::Load),
    /// Start units on every machine where they belong
    Start(launch::Start),
    /// Restart units on every machine, a few machines at a time
    Restart(rollout::Restart),
    /// Stop units on every machine and keep them loaded
    Stop(stop::Stop),
    /// Stop units and remove them from every machine, but not from the registry
    #[command(after_help = "Examples:
  fleetctl unload hello.service
  fleetctl unload 'web@*'")]
    Unload(stop::Stop),
    /// Stop units and remove them from every machine and from the registry
    Destroy(stop::Destroy),
    /// Print a unit file from the registry
    Cat(show::Cat),
    /// List the state of units on every machine
    #[command(after_help = "Examples:
  fleetctl list-units
  fleetctl list-units --output wide --watch
  fleetctl list-units --full --no-legend --fields=unit,machine,active,hash")]
    ListUnits(Listing<rows::UnitRow>),
    /// List the units in the registry, running or not
    #[command(after_help = "Examples:
  fleetctl list-unit-files
  fleetctl list-unit-files --output name
  fleetctl list-unit-files --no-legend --fields=unit,desc")]
    ListUnitFiles(Listing<rows::UnitFileRow>),
    /// List the machines of the cluster
    #[command(after_help = "Examples:
  fleetctl list-machines
  fleetctl list-machines --output json
  fleetctl list-machines --full --no-legend --fields=machine")]
    ListMachines(Listing<rows::MachineRow>),
    /// List the global units with counts of machines
    #[command(
        after_help = "Counts are of live machines where the unit belongs (DESIRED): those that have it (CURRENT), at
the revision that machines move to (UP-TO-DATE), READY, ready for MinReadySec
(AVAILABLE), FAILED. DEFERRED are machines that get it later: offline, cordoned, drained, or
waiting for their turn. REV is the stable revision, 2->3 while 3 is rolled out.

Examples:
  fleetctl list-globals
  fleetctl list-globals --watch
  fleetctl list-globals --no-legend --fields=unit,desired,available"
    )]
    ListGlobals(Listing<rows::GlobalRow>),
    /// Show what starting unit files would do to each machine
    Plan(plan::PlanUnits),
    /// Compare unit files with the registry and show what would restart
    Diff(diff::Diff),
    /// Follow, pause, resume or undo an update; list revisions
    Rollout(rollout::Rollout),
    /// Explain why a unit runs on a machine or does not
    Explain(explain::Explain),
    /// Print events of units and machines, with reasons
    Events(events::Events),
    /// Let no unit start or update on machines
    Cordon(scheduling::Cordon),
    /// Let units start on machines again
    Uncordon(scheduling::Cordon),
    /// Stop every unit on machines and start none there
    Drain(scheduling::Drain),
    /// Show units on every machine; without units, show the cluster
    Status(status::Status),
    /// Wait until units are ready, active or gone on every machine
    Wait(wait::Wait),
    /// Print the logs of units from all machines, ordered by time
    Journal(journal::Journal),
    /// Run a command or a shell on a machine
    Ssh(ssh::SshCommand),
    /// Set and remove metadata of a machine
    Metadata(metadata::ChangeMetadata),
    /// Accept a registry that was wiped, restored or replaced
    AcceptRegistry(accept_registry::AcceptRegistry),
}

impl Command {
    /// Runs a command, which contacts fleetd, and other machines over ssh.
    pub(crate) async fn run(
        self,
        client: &mut Client,
        ssh: &Ssh,
        paint: Paint,
    ) -> anyhow::Result<ExitCode> {
        match self {
            Self::Submit(submit) => submit.run(client).await?,
            Self::Load(load) => load.run(client).await?,
            Self::Start(start) => start.run(client).await?,
            Self::Restart(restart) => restart.run(client).await?,
            Self::Stop(stop) => stop.run(client, TargetState::Loaded).await?,
            Self::Unload(unload) => unload.run(client, TargetState::Inactive).await?,
            Self::Destroy(destroy) => destroy.run(client).await?,
            Self::Cat(cat) => cat.run(client).await?,
            Self::ListUnits(listing) => list::units(listing, client, paint).await?,
            Self::ListUnitFiles(listing) => list::unit_files(listing, client, paint).await?,
            Self::ListMachines(listing) => list::machines(listing, client, paint).await?,
            Self::ListGlobals(listing) => list::globals(listing, client, paint).await?,
            Self::Plan(plan) => return Ok(plan.run(client, paint).await),
            Self::Diff(diff) => return Ok(diff.run(client).await),
            Self::Rollout(rollout) => return rollout.run(client, paint).await,
            Self::Explain(explain) => return explain.run(client, paint).await,
            Self::Events(events) => return events.run(client).await,
            Self::Cordon(cordon) => cordon.run(client, Scheduling::Cordoned).await?,
            Self::Uncordon(cordon) => cordon.run(client, Scheduling::Normal).await?,
            Self::Drain(drain) => drain.run(client).await?,
            Self::Status(status) => return status.run(client, ssh, paint).await,
            Self::Wait(wait) => return wait.run(client).await,
            Self::Journal(journal) => return journal.run(client, ssh).await,
            Self::Ssh(command) => return command.run(client, ssh).await,
            Self::Metadata(change) => change.run(client).await?,
            Self::AcceptRegistry(accept) => accept.run(client).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
