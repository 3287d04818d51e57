//! rollout history: the known revisions, or the content of one.

use std::borrow::Cow;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use fleet_core::api::RevisionRow;
use serde::Serialize;

use super::super::missing::no_such_unit;
use crate::client::Client;
use crate::describe;
use crate::listing::{Column, Listing, Row};
use crate::local::typed_name;
use crate::output::write;
use crate::paint::{self, Paint};

#[derive(Args)]
#[command(after_help = "States:
  stable       every machine should run it
  candidate    it is being rolled out
  superseded   another revision replaced it
  rolled-back  machines returned from it, for the reason shown
  unreadable   damaged, or of a newer fleetd

Examples:
  fleetctl rollout history web.service
  fleetctl rollout history --revision 3 web.service")]
pub(super) struct History {
    /// Print the content of this revision, byte for byte
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
    /// The name of a unit in the registry
    unit: String,
    #[command(flatten)]
    listing: Listing<HistoryRow>,
}

/// A revision.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryRow {
    /// The revision's number as text.
    #[serde(skip)]
    name: String,
    revision: u64,
    /// When it was submitted, in RFC 3339.
    at: String,
    hash: String,
    state: String,
    reason: String,
    #[serde(skip)]
    date: String,
}

impl From<RevisionRow> for HistoryRow {
    fn from(row: RevisionRow) -> Self {
        Self {
            name: row.number.to_string(),
            revision: row.number,
            at: describe::timestamp(row.at),
            date: describe::date(row.at),
            hash: row.hash,
            state: row.state,
            reason: row.reason,
        }
    }
}

impl Row for HistoryRow {
    const KIND: &'static str = "RevisionList";
    const TABLE: &'static str = "revision,at,state,reason";
    const WIDE: &'static str = "revision,at,state,hash,reason";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("revision", |row, _| Cow::from(&row.name)),
        Column::new("at", |row, _| Cow::from(&row.date)),
        Column::painted(
            "state",
            |row, _| Cow::from(&row.state),
            |row| paint::phase(&row.state),
        ),
        Column::new("hash", |row, full| describe::hash(&row.hash, full).into()),
        Column::new("reason", |row, _| Cow::from(&row.reason)),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

impl History {
    pub(super) async fn run(self, client: &mut Client, paint: Paint) -> anyhow::Result<ExitCode> {
        let name = typed_name(&self.unit)?;
        let retrieving = || format!("Error retrieving the history of {name}");
        let history = client.history(name.as_str()).await;
        let Some(history) = history.with_context(retrieving)? else {
            return no_such_unit(client, &name).await;
        };
        if let Some(number) = self.revision {
            let revision = client.revision(name.as_str(), number).await;
            let revision = revision.with_context(retrieving)?;
            let content = revision.content.with_context(|| {
                format!("fleetd answered without the content of revision {number}")
            })?;
            return write(content.as_bytes()).map(|()| ExitCode::SUCCESS);
        }
        let mut first = Some(history);
        let read = async |client: &mut Client| {
            let history = match first.take() {
                Some(history) => Some(history),
                None => client
                    .history(name.as_str())
                    .await
                    .with_context(retrieving)?,
            };
            let rows = history.map(|history| history.revisions).unwrap_or_default();
            Ok(rows.into_iter().map(HistoryRow::from).collect())
        };
        self.listing.print(client, paint, read).await?;
        Ok(ExitCode::SUCCESS)
    }
}
