//! Sends logs to the journal with fields if there is one, else to standard error.

use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

/// The verbosity of the log. It can be changed while fleetd runs.
pub(super) struct Verbosity(reload::Handle<Targets, Registry>);

impl Verbosity {
    pub(super) fn set(&self, verbosity: u16) {
        // It fails only if nothing is logged any more.
        let _ = self.0.reload(filter(verbosity));
    }
}

/// Returns the filter of a verbosity. 0 logs what changes; 1 and above also log why.
fn filter(verbosity: u16) -> Targets {
    let level = if verbosity > 0 {
        Level::DEBUG
    } else {
        Level::INFO
    };
    Targets::new()
        .with_target("fleetd", level)
        .with_target("fleet_core", level)
        .with_default(Level::WARN)
}

/// Starts logging.
pub(super) fn start(verbosity: u16) -> Verbosity {
    let (filter, handle) = reload::Layer::new(filter(verbosity));
    let journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| tracing_journald::layer().ok())
        .map(|layer| layer.with_syslog_identifier("fleetd".to_owned()));
    let registry = tracing_subscriber::registry();
    match journal {
        Some(layer) => registry.with(layer.with_filter(filter)).init(),
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .with_target(false);
            registry.with(layer.with_filter(filter)).init();
        }
    }
    Verbosity(handle)
}
