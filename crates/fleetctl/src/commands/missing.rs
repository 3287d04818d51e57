//! What is told of units that are not in the registry.

use std::process::ExitCode;

use fleet_core::unit::UnitName;

use crate::client::Client;
use crate::exit;
use crate::output::talk;
use crate::select::Unknown;

/// Tells of units that are not in the registry, and of those that may be meant.
pub(super) fn tell_missing(missing: &[Unknown]) {
    for unit in missing {
        talk(unit.sentence());
    }
}

/// Tells that a unit is not in the registry, and one that may be meant.
pub(super) async fn no_such_unit(client: &mut Client, name: &UnitName) -> anyhow::Result<ExitCode> {
    let units = client.units().await?;
    tell_missing(&[Unknown::among(name.to_string(), &units)]);
    Ok(exit::NO_SUCH_UNIT.into())
}
