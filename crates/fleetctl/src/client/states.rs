//! The machines' reports about their units, the longest collection of all.

use std::borrow::Cow;
use std::collections::HashMap;

use fleet_core::api::UnitReport;
use fleet_core::unit::UnitName;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny};

use super::{Client, ClientError, details_query, encode};

/// The state of a unit on a machine, borrowed from the response. Callers keep little of it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StateRow<'a> {
    #[serde(borrow)]
    pub(crate) hash: Cow<'a, str>,
    #[serde(borrow, rename = "machineID")]
    pub(crate) machine_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) systemd_active_state: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) systemd_load_state: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) systemd_sub_state: Cow<'a, str>,
    pub(crate) report: Option<Box<UnitReport>>,
}

/// The addresses of live machines, by machine id.
pub(crate) type Addresses = HashMap<String, String>;

/// Some of the addresses.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StateRows<'a> {
    #[serde(borrow)]
    states: Vec<StateRow<'a>>,
    addresses: Addresses,
    /// The token of a page. Only a fleetd without streams sends it.
    next_page_token: Option<IgnoredAny>,
}

impl Client {
    /// Returns the machines' reports about their units, machine by machine. Each becomes a `row`
    /// when it arrives, because there may be many. With details, each is the whole report.
    pub(crate) async fn states<T: Send + 'static>(
        &mut self,
        details: bool,
        row: impl FnMut(StateRow<'_>, &Addresses) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, ClientError> {
        self.rows(details_query(details), row).await
    }

    /// Returns the number of machines that report a unit, even if the registry no longer has it.
    pub(crate) async fn machines_with(&mut self, name: &UnitName) -> Result<usize, ClientError> {
        let only = format!("unitName={}", encode(name.as_str()));
        Ok(self.rows(Some(only), |_, _| ()).await?.len())
    }

    async fn rows<T: Send + 'static>(
        &mut self,
        parameter: Option<String>,
        mut row: impl FnMut(StateRow<'_>, &Addresses) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, ClientError> {
        let open = move |line: &[u8]| {
            let rows: StateRows<'_> = serde_json::from_slice(line)?;
            if rows.next_page_token.is_some() {
                let text = "it is the first page of several, not all rows";
                return Err(serde_json::Error::custom(text));
            }
            let row = |state| row(state, &rows.addresses);
            Ok(rows.states.into_iter().map(row).collect())
        };
        let query = ["stream=true".to_owned()].into_iter().chain(parameter);
        let query: Vec<String> = query.collect();
        self.stream(&format!("state?{}", query.join("&")), open)
            .await
    }
}
