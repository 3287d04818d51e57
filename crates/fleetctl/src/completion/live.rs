//! The cluster's units and machines, for completion. fleetctl waits for them only briefly.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Command;
use clap_complete::engine::CompletionCandidate;
use fleet_core::api::{Machine, Unit};

use crate::client::{Client, ClientError};
use crate::connect::Connect;
use crate::describe;
use crate::options::description;

/// The longest wait for completion. A longer one seems to hang.
const PATIENCE: Duration = Duration::from_millis(300);

/// The fleetd that a command line names.
#[derive(Clone)]
pub(super) struct Live(Option<Arc<Connect>>);

impl Live {
    /// Returns the fleetd that these words name.
    pub(super) fn asked_by(command: Command, words: &[OsString]) -> Self {
        Self(Connect::of_unfinished(command, words).map(Arc::new))
    }

    /// Returns the units in the registry; empty without a response.
    pub(super) fn units(&self) -> Vec<CompletionCandidate> {
        let units = self.ask(async |client| client.units().await);
        let candidate = |unit: Unit| {
            let help = description(&unit.options).map(str::to_owned);
            CompletionCandidate::new(unit.name).help(help.map(Into::into))
        };
        units.into_iter().map(candidate).collect()
    }

    /// Returns the ids of the live machines; empty without a response.
    pub(super) fn machines(&self) -> Vec<CompletionCandidate> {
        let machines = self.ask(async |client| client.machines(false).await);
        let candidate = |machine: Machine| {
            let help = format!(
                "{} {}",
                machine.primary_ip,
                describe::metadata(&machine.metadata)
            );
            CompletionCandidate::new(machine.id).help(Some(help.into()))
        };
        machines.into_iter().map(candidate).collect()
    }

    /// Makes a request. Failures are silent: the command itself will report them when it runs.
    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Client) -> Result<Vec<T>, ClientError>,
    ) -> Vec<T> {
        let answer = || -> anyhow::Result<Vec<T>> {
            let mut client = self.0.as_ref().context("no fleetd to ask")?.client()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let answer = runtime
                .block_on(async { tokio::time::timeout(PATIENCE, question(&mut client)).await });
            // Do not wait for a name server that does not respond.
            runtime.shutdown_background();
            Ok(answer??)
        };
        answer().unwrap_or_default()
    }
}
