//! list-units, list-unit-files, list-machines, list-globals: the requests for each.

use anyhow::Context as _;

use super::rows::{GlobalRow, MachineRow, UnitFileRow, UnitRow, UnitRows, by_unit};
use crate::client::{Addresses, Client, StateRow};
use crate::listing::Listing;
use crate::output::talk;
use crate::paint::Paint;

const RETRIEVING_UNITS: &str = "Error retrieving list of units from repository";

/// Returns a row for each unit that each machine reports.
pub(super) async fn units(
    listing: Listing<UnitRow>,
    client: &mut Client,
    paint: Paint,
) -> anyhow::Result<()> {
    let detailed = listing.detailed();
    let read = async |client: &mut Client| {
        let mut rows = UnitRows::default();
        let row = move |state: StateRow<'_>, addresses: &Addresses| rows.row(&state, addresses);
        let rows = client.states(detailed, row).await;
        rows.map(by_unit).context(RETRIEVING_UNITS)
    };
    listing.print(client, paint, read).await
}

/// Returns a row for each unit of the registry.
pub(super) async fn unit_files(
    listing: Listing<UnitFileRow>,
    client: &mut Client,
    paint: Paint,
) -> anyhow::Result<()> {
    if listing.asks_for("tmachine") {
        talk("WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead");
    }
    let read = async |client: &mut Client| {
        let units = client.units_with_states().await;
        let units = units.context(RETRIEVING_UNITS)?;
        Ok(units.into_iter().map(UnitFileRow::from).collect())
    };
    listing.print(client, paint, read).await
}

/// Returns a row for each live machine.
pub(super) async fn machines(
    listing: Listing<MachineRow>,
    client: &mut Client,
    paint: Paint,
) -> anyhow::Result<()> {
    let detailed = listing.detailed();
    let read = async |client: &mut Client| {
        let machines = client.machines(detailed).await;
        let machines =
            machines.context("Error retrieving list of active machines from fleet API")?;
        Ok(machines.into_iter().map(MachineRow::from).collect())
    };
    listing.print(client, paint, read).await
}

/// Returns a row for each global unit.
pub(super) async fn globals(
    listing: Listing<GlobalRow>,
    client: &mut Client,
    paint: Paint,
) -> anyhow::Result<()> {
    let read = async |client: &mut Client| {
        let list = client.rollouts().await;
        let list = list.context("Error retrieving list of global units")?;
        Ok(list.rollouts.into_iter().map(GlobalRow::from).collect())
    };
    listing.print(client, paint, read).await
}
