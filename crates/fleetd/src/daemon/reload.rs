//! Signals: SIGHUP reads the configuration again, SIGUSR1 logs the state of the agent, SIGUSR2 does
//! nothing.

use std::io;

use fleet_core::record::MachineRecord;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::logging::Verbosity;
use super::notify;
use super::peers::Groups;
use crate::agent::AgentStatus;
use crate::config::options::OPTIONS;
use crate::config::{Args, Inputs, Settings};

/// The options that a running fleetd applies from a changed configuration.
const LIVE: [&str; 4] = [
    "verbosity",
    "metadata",
    "api_read_group",
    "api_change_group",
];

/// The signals of fleetd. They are caught from the start, because each of them ends a process that
/// does not catch it.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: [Signal; 2],
}

/// The request of a signal.
pub(super) enum Asked {
    Stop,
    Reload,
    Log,
}

impl Signals {
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// Waits for the next signal that requests something.
    pub(super) async fn next(&mut self) -> Asked {
        let [log, nothing] = &mut self.user;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::Stop,
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.hang_up.recv() => return Asked::Reload,
                _ = log.recv() => return Asked::Log,
                _ = nothing.recv() => {}
            }
        }
    }
}

/// The sources of the configuration, and the verbosity of the log.
pub(super) struct Source {
    pub(super) args: Args,
    pub(super) verbosity: Verbosity,
}

/// The configuration in effect, and the parts that follow it.
pub(super) struct Configuration {
    source: Source,
    inputs: Inputs,
    record: watch::Sender<MachineRecord>,
    groups: watch::Sender<Groups>,
}

impl Source {
    pub(super) fn follow(
        self,
        record: watch::Sender<MachineRecord>,
        groups: watch::Sender<Groups>,
    ) -> Configuration {
        Configuration {
            inputs: Inputs::gather(&self.args, std::env::vars_os()),
            source: self,
            record,
            groups,
        }
    }
}

impl Configuration {
    /// Reads the configuration again, applies what a running fleetd can apply, and logs what it
    /// cannot. An unusable configuration changes nothing.
    pub(super) fn reload(&mut self) {
        tracing::info!("Reloading configuration");
        notify::reloading();
        let inputs = Inputs::gather(&self.source.args, std::env::vars_os());
        let (settings, problems) = Settings::validate(&inputs);
        for problem in &problems {
            tracing::error!("{problem}");
        }
        match settings.filter(|_| problems.is_empty()) {
            Some(settings) => self.apply(&settings, &inputs),
            None => tracing::error!("the configuration cannot be used: everything stays as it was"),
        }
        notify::ready();
    }

    fn apply(&mut self, settings: &Settings, inputs: &Inputs) {
        self.source.verbosity.set(settings.verbosity);
        self.groups.send_replace(Groups::of(settings));
        self.record.send_if_modified(|record| {
            let differs = record.metadata != settings.metadata;
            record.metadata.clone_from(&settings.metadata);
            differs
        });
        let (applied, not): (Vec<_>, Vec<_>) = changed(&self.inputs, inputs)
            .into_iter()
            .partition(|option| LIVE.contains(option));
        if !applied.is_empty() {
            tracing::info!("the configuration changed: {}", applied.join(", "));
        }
        if !not.is_empty() {
            tracing::warn!(
                "the configuration changed and needs a restart of fleetd, which touches no unit: {}",
                not.join(", ")
            );
        }
        // Options that need a restart are named again at the next reload.
        self.inputs.adopt(inputs, &LIVE);
    }
}

/// Returns the options whose values differ.
fn changed(before: &Inputs, now: &Inputs) -> Vec<&'static str> {
    let names = OPTIONS.iter().map(|option| option.name);
    names
        .filter(|name| before.get(name).0 != now.get(name).0)
        .collect()
}

/// Logs the state of the agent.
pub(super) fn log(agent: &AgentStatus) {
    tracing::info!("agent: {} of {} units ready", agent.ready, agent.wanted);
    if let Some(held) = &agent.held {
        tracing::info!("agent: {held}");
    }
    for (thing, text) in &agent.problems {
        tracing::info!("agent: problem: {thing}: {text}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::fragment::Fragment;

    #[test]
    fn option_that_needs_a_restart_is_named_at_every_reload() {
        let file = |text: &str| {
            let path = Path::new("/etc/fleet/fleet.conf");
            Inputs::merge([Fragment::from_file(path, text.as_bytes())])
        };
        let mut in_effect = file("metadata=a=1\nagent_ttl=5s\n");
        let now = file("metadata=a=2\nagent_ttl=6s\n");
        assert_eq!(changed(&in_effect, &now), ["metadata", "agent_ttl"]);
        in_effect.adopt(&now, &LIVE);
        assert_eq!(changed(&in_effect, &now), ["agent_ttl"]);
    }
}
