//! cat: print a unit file.

use anyhow::{Context as _, bail};
use clap::Args;

use crate::client::Client;
use crate::local::typed_name;
use crate::output::write;
use crate::select::Unknown;

#[derive(Args)]
#[command(after_help = "Example:
  fleetctl cat hello.service > hello.service")]
pub(crate) struct Cat {
    /// The name of a unit in the registry
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
}

impl Cat {
    /// Prints the bytes as they were submitted.
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let [argument] = &self.names[..] else {
            bail!("One unit file must be provided");
        };
        let name = typed_name(argument)?;
        let retrieving = || format!("Error retrieving Unit {name}");
        let Some(unit) = client.unit(&name).await.with_context(retrieving)? else {
            let units = client.units().await.with_context(retrieving)?;
            bail!(
                "Unit {name} not found{}",
                Unknown::among(name.to_string(), &units).hint()
            );
        };
        let content = unit.content.with_context(|| {
            format!(
                "fleetd answered without the content of {name}: is it older than this fleetctl?"
            )
        })?;
        write(content.as_bytes())
    }
}
