//! What the cluster has, for a person who waits for a Tab: asked for a moment, and then done
//! without.

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

/// What a shell may be kept waiting: longer seems to hang.
const PATIENCE: Duration = Duration::from_millis(300);

/// The fleetd that a command line means.
#[derive(Clone)]
pub(super) struct Live(Option<Arc<Connect>>);

impl Live {
    /// The one that these words ask, or would.
    pub(super) fn asked_by(command: Command, words: &[OsString]) -> Self {
        Self(Connect::of_unfinished(command, words).map(Arc::new))
    }

    /// The units in the registry; none if there is no answer.
    pub(super) fn units(&self) -> Vec<CompletionCandidate> {
        let units = self.ask(async |client| client.units().await);
        let candidate = |unit: Unit| {
            let help = description(&unit.options).map(str::to_owned);
            CompletionCandidate::new(unit.name).help(help.map(Into::into))
        };
        units.into_iter().map(candidate).collect()
    }

    /// The ids of the live machines; none if there is no answer.
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

    /// Whatever goes wrong is silence: the command itself will tell, once it is run.
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
            // A name server that does not answer is not waited for either.
            runtime.shutdown_background();
            Ok(answer??)
        };
        answer().unwrap_or_default()
    }
}
