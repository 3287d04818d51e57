//! Asks fleetd: the API's resources as functions.

mod connection;
mod endpoint;

use std::time::Duration;

use fleet_core::api::{
    ClusterStatus, ErrorBody, Machine, MachinePage, MetadataOp, StatePage, Unit, UnitPage,
    UnitState, UnitStatus, V1,
};
use fleet_core::record::TargetState;
use fleet_core::unit::{Content, UnitName};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::output::talk;
use crate::remote::Tunnel;
use connection::{Connection, ConnectionError};
pub(crate) use endpoint::Endpoint;

/// fleetd holds a long poll open for up to this long.
const LONG_POLL: Duration = Duration::from_secs(30);

/// A header that fleetd sends once for each thing worth knowing about an accepted request.
const WARNING: &str = "x-fleet-warning";

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There was no answer.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// fleetd refuses; the sentence is its own.
    #[error("{message}")]
    Refused { code: StatusCode, message: String },
    /// An answer that is none of fleetd's.
    #[error("cannot read the answer to {path}: {why}; does fleetd listen at this endpoint?")]
    Unreadable {
        path: String,
        why: serde_json::Error,
    },
}

/// The API of one fleetd.
pub(crate) struct Client {
    connection: Connection,
    timeout: Duration,
}

impl Client {
    /// Prepares to talk to `endpoint`, of another machine if through a tunnel; connects with the first request.
    /// Each request ends within `timeout`.
    pub(crate) fn new(endpoint: Endpoint, tunnel: Option<Tunnel>, timeout: Duration) -> Self {
        Self {
            connection: Connection::new(endpoint, tunnel),
            timeout,
        }
    }

    /// All live machines, ordered by id.
    pub(crate) async fn machines(&mut self) -> Result<Vec<Machine>, ClientError> {
        self.pages("machines", |page: MachinePage| {
            (page.machines, page.next_page_token)
        })
        .await
    }

    /// All units, ordered by name, without their content.
    pub(crate) async fn units(&mut self) -> Result<Vec<Unit>, ClientError> {
        self.pages("units", |page: UnitPage| (page.units, page.next_page_token))
            .await
    }

    /// What every machine says of its units, ordered by unit, then machine.
    pub(crate) async fn states(&mut self) -> Result<Vec<UnitState>, ClientError> {
        self.pages("state", |page: StatePage| {
            (page.states, page.next_page_token)
        })
        .await
    }

    /// A unit with its content, or none if the registry has no unit of that name.
    pub(crate) async fn unit(&mut self, name: &UnitName) -> Result<Option<Unit>, ClientError> {
        let path = format!("units/{}?content=true", encode(name.as_str()));
        found(self.get(&path, self.timeout).await)
    }

    /// Creates a unit, or changes its content and target state.
    pub(crate) async fn put_unit(
        &mut self,
        name: &UnitName,
        content: Option<Content>,
        target: TargetState,
    ) -> Result<(), ClientError> {
        let unit = Unit {
            name: name.to_string(),
            content,
            desired_state: target.to_string(),
            ..Unit::default()
        };
        self.send(
            Method::PUT,
            &format!("units/{}", encode(name.as_str())),
            Some(&unit),
        )
        .await
    }

    /// Removes a unit; answers whether there was one.
    pub(crate) async fn destroy_unit(&mut self, name: &str) -> Result<bool, ClientError> {
        let path = format!("units/{}", encode(name));
        found(self.send(Method::DELETE, &path, None::<&()>).await).map(|gone| gone.is_some())
    }

    /// The cluster at a glance.
    pub(crate) async fn cluster_status(&mut self) -> Result<ClusterStatus, ClientError> {
        self.get("status", self.timeout).await
    }

    /// A unit on every machine, or none if there is no such unit.
    ///
    /// With a registry revision the answer comes when something has changed since, at the latest after
    /// 30 seconds.
    pub(crate) async fn unit_status(
        &mut self,
        name: &str,
        after: Option<u64>,
    ) -> Result<Option<UnitStatus>, ClientError> {
        let path = format!("status/{}", encode(name));
        found(match after {
            None => self.get(&path, self.timeout).await,
            Some(revision) => {
                let path = format!("{path}?after={revision}");
                self.get(&path, self.timeout + LONG_POLL).await
            }
        })
    }

    /// Changes metadata of machines, all or nothing.
    pub(crate) async fn patch_machines(&mut self, ops: &[MetadataOp]) -> Result<(), ClientError> {
        self.send(Method::PATCH, "machines", Some(ops)).await
    }

    /// Follows the pages of a collection to its end.
    async fn pages<P: DeserializeOwned, T>(
        &mut self,
        collection: &str,
        open: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        let mut path = collection.to_owned();
        loop {
            let (items, next) = open(self.get(&path, self.timeout).await?);
            all.extend(items);
            match next {
                Some(token) if !token.is_empty() => {
                    path = format!("{collection}?nextPageToken={}", encode(&token));
                }
                _ => return Ok(all),
            }
        }
    }

    async fn get<T: DeserializeOwned>(
        &mut self,
        path: &str,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let body = self.ask(Method::GET, path, None, timeout).await?;
        serde_json::from_slice(&body).map_err(|why| ClientError::Unreadable {
            path: path.to_owned(),
            why,
        })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<(), ClientError> {
        let json =
            body.map(|body| serde_json::to_vec(body).expect("API types are maps with text keys"));
        self.ask(method, path, json, self.timeout).await?;
        Ok(())
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        json: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let (parts, body) = self
            .connection
            .exchange(method, &format!("{V1}/{path}"), json, timeout)
            .await?;
        for warning in parts.headers.get_all(WARNING) {
            talk(format_args!(
                "WARNING: {}",
                String::from_utf8_lossy(warning.as_bytes())
            ));
        }
        if parts.status.is_success() {
            Ok(body)
        } else {
            Err(refusal(parts.status, &body))
        }
    }
}

/// fleetd's sentence on why it refuses, or at least the HTTP status.
fn refusal(code: StatusCode, body: &[u8]) -> ClientError {
    let message = serde_json::from_slice(body)
        .map(|body: ErrorBody| body.error.message)
        .ok()
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| format!("fleetd answered HTTP {code} without saying why"));
    ClientError::Refused { code, message }
}

/// Turns "not found" into none.
fn found<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Err(ClientError::Refused {
            code: StatusCode::NOT_FOUND,
            ..
        }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Unit names may hold `\` and `@`, page tokens `+` and `=`.
fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_fleetds_own_sentence() {
        let error = refusal(
            StatusCode::BAD_REQUEST,
            br#"{"error":{"code":400,"message":"cannot activate template \"t@.service\""}}"#,
        );
        assert_eq!(error.to_string(), "cannot activate template \"t@.service\"");
    }

    #[test]
    fn a_refusal_without_a_sentence_shows_the_status() {
        for body in [
            &br#"{"error":{"code":500,"message":""}}"#[..],
            b"<html>",
            b"",
        ] {
            assert_eq!(
                refusal(StatusCode::INTERNAL_SERVER_ERROR, body).to_string(),
                "fleetd answered HTTP 500 Internal Server Error without saying why"
            );
        }
    }

    #[test]
    fn names_and_tokens_survive_a_url() {
        assert_eq!(encode("a\\x2d@1.mount").to_string(), "a%5Cx2d%401%2Emount");
        assert_eq!(encode("ZAAC+A==").to_string(), "ZAAC%2BA%3D%3D");
    }
}
