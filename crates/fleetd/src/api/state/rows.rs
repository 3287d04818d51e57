//! Rows in the form that is sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use fleet_core::api::{StatePage, UnitReport, UnitState};
use serde::{Deserialize, Serialize};

/// The part of a [`UnitReport`] that a row shows.
#[derive(Deserialize)]
pub(super) struct Brief<'a> {
    #[serde(borrow)]
    load: Cow<'a, str>,
    #[serde(borrow)]
    active: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
}

impl<'a> Brief<'a> {
    pub(super) fn of(unit: &'a UnitReport) -> Self {
        Self {
            load: Cow::from(&unit.load),
            active: Cow::from(&unit.active),
            sub: Cow::from(&unit.sub),
            hash: Cow::from(&unit.hash),
        }
    }
}

/// A [`UnitState`] that is written directly from its report.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row<'a> {
    hash: &'a str,
    #[serde(rename = "machineID")]
    machine_id: &'a str,
    name: &'a str,
    systemd_active_state: &'a str,
    systemd_load_state: &'a str,
    systemd_sub_state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a UnitReport>,
}

impl<'a> Row<'a> {
    pub(super) fn new(
        machine_id: &'a str,
        name: &'a str,
        unit: &'a Brief<'_>,
        report: Option<&'a UnitReport>,
    ) -> Self {
        Self {
            hash: &unit.hash,
            machine_id,
            name,
            systemd_active_state: &unit.active,
            systemd_load_state: &unit.load,
            systemd_sub_state: &unit.sub,
            report,
        }
    }

    pub(super) fn to_state(&self) -> UnitState {
        UnitState {
            hash: self.hash.to_owned(),
            machine_id: self.machine_id.to_owned(),
            name: self.name.to_owned(),
            systemd_active_state: self.systemd_active_state.to_owned(),
            systemd_load_state: self.systemd_load_state.to_owned(),
            systemd_sub_state: self.systemd_sub_state.to_owned(),
            report: self.report.cloned(),
        }
    }
}

/// The rows of a page as JSON. There are thousands, and nothing else of them is kept.
#[derive(Default)]
pub(super) struct Rows {
    json: Vec<u8>,
    pub(super) count: usize,
}

impl Rows {
    pub(super) fn push(&mut self, row: &Row<'_>) {
        if self.count > 0 {
            self.json.push(b',');
        }
        serde_json::to_writer(&mut self.json, row).expect("a row is a map with text keys");
        self.count += 1;
    }

    /// Returns a [`StatePage`] with the rows.
    pub(super) fn page(self, next_page_token: Option<String>) -> Response {
        let bare = StatePage {
            next_page_token,
            ..StatePage::default()
        };
        let json = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, json)], self.into_json(&bare)).into_response()
    }

    /// Returns the same as a line of a stream.
    pub(super) fn line(self, addresses: BTreeMap<String, String>) -> Vec<u8> {
        let bare = StatePage {
            addresses,
            ..StatePage::default()
        };
        let mut line = self.into_json(&bare);
        line.push(b'\n');
        line
    }

    /// Returns that page with these rows in it.
    fn into_json(mut self, bare: &StatePage) -> Vec<u8> {
        let mut head = serde_json::to_vec(bare).expect("a page is a map with text keys");
        if self.count > 0 {
            head.pop();
            if head.len() > 1 {
                head.push(b',');
            }
            head.extend_from_slice(br#""states":["#);
            self.json.extend_from_slice(b"]}");
        }
        self.json.splice(0..0, head);
        self.json
    }
}
