//! What the machines say of their units: of all collections the one that is long.

use std::borrow::Cow;

use fleet_core::api::{StatePage, UnitState};
use fleet_core::record::UnitReport;
use fleet_core::unit::UnitName;
use serde::Deserialize;

use super::{Client, ClientError, details_query, encode, page_of};

/// A [`UnitState`] as it stands in the answer, for who keeps little of it.
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

/// A page of them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StateRows<'a> {
    next_page_token: Option<String>,
    #[serde(borrow)]
    states: Vec<StateRow<'a>>,
}

impl Client {
    /// What every machine says of its units, machine by machine, each made into a `row` when it comes: there may be many. With
    /// details: the whole report.
    pub(crate) async fn states<T: Send + 'static>(
        &mut self,
        details: bool,
        mut row: impl FnMut(StateRow<'_>) -> T + Send + 'static,
    ) -> Result<Vec<T>, ClientError> {
        let open = move |page: &[u8]| {
            let page: StateRows<'_> = serde_json::from_slice(page)?;
            let rows = page.states.into_iter().map(&mut row).collect();
            Ok((rows, page.next_page_token))
        };
        self.pages("state", details_query(details), open).await
    }

    /// What the machines say of one unit, whether the registry still has it or not.
    pub(crate) async fn states_of(
        &mut self,
        name: &UnitName,
    ) -> Result<Vec<UnitState>, ClientError> {
        let only = format!("unitName={}", encode(name.as_str()));
        // Of one unit there is one row a machine: ordered as they come.
        let open = page_of(|page: StatePage| (page.states, page.next_page_token));
        self.pages("state", Some(only), open).await
    }
}
