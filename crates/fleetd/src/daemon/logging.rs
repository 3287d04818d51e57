//! Sends logs to the journal with fields if there is one, else to standard error.

use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging. `verbosity` 0 says what changes, 1 and above why as well.
pub(super) fn start(verbosity: u16) {
    let level = if verbosity > 0 {
        Level::DEBUG
    } else {
        Level::INFO
    };
    let filter = Targets::new()
        .with_target("fleetd", level)
        .with_target("fleet_core", level)
        .with_default(Level::WARN);
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
}
