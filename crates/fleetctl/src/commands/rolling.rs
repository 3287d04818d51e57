//! What is told a person whose command began a rollout.

use std::io::{self, IsTerminal as _};

use fleet_core::unit::UnitName;

use crate::client::Client;
use crate::output::talk;

/// Tells a person at a terminal which of these units are on their way now, and how to follow them. Scripts did not
/// expect it.
pub(super) async fn tell_rolling(client: &mut Client, units: &[UnitName]) {
    if !io::stderr().is_terminal() {
        return;
    }
    for unit in units {
        // What was asked for is done: that it cannot be told how it goes on is no failure of it.
        let Ok(Some(status)) = client.unit_status(unit.as_str(), None).await else {
            continue;
        };
        if let Some(candidate) = status.candidate {
            talk(format_args!(
                "{unit}: revision {} is {}; to follow it: fleetctl rollout status --watch {unit}",
                candidate.revision,
                match candidate.phase.as_str() {
                    "paused" => "paused",
                    _ => "being rolled out",
                }
            ));
        }
    }
}
