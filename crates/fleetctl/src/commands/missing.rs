//! Messages about units that are missing from the registry.

use std::process::ExitCode;

use fleet_core::unit::UnitName;

use crate::client::Client;
use crate::exit;
use crate::output::talk;
use crate::select::Unknown;

/// Prints which units are missing from the registry, each with a similar name.
pub(super) fn tell_missing(missing: &[Unknown]) {
    for unit in missing {
        talk(unit.sentence());
    }
}

/// Prints that a unit is missing from the registry, with a similar name.
pub(super) async fn no_such_unit(client: &mut Client, name: &UnitName) -> anyhow::Result<ExitCode> {
    let units = client.units().await?;
    tell_missing(&[Unknown::among(name.to_string(), &units)]);
    Ok(exit::NO_SUCH_UNIT.into())
}
