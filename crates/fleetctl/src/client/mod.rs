//! The client of fleetd: the API's resources as functions.

mod connection;
mod each;
mod pages;
mod payload;
mod rollouts;
mod states;
mod stream;
mod tls;

use std::time::Duration;

use fleet_core::api::{
    AcceptBody, ClusterStatus, ErrorBody, Machine, MachinePage, MetadataOp, RegistryStanding, Unit,
    UnitPage, UnitStatus, V1,
};
use fleet_core::unit::{Content, TargetState, UnitName};
use hyper::body::Bytes;
use hyper::header::SERVER;
use hyper::http::response::Parts;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::payload::Payload;
use crate::endpoint::Endpoint;
use crate::output::talk;
use crate::remote::Tunnel;
use connection::{Connection, ConnectionError, NOT_FLEETD};
pub(crate) use each::NotTried;
use pages::Page;
pub(crate) use states::{Addresses, StateRow};
pub(crate) use tls::{TlsError, TlsFiles};

/// The longest time that fleetd holds a long poll open.
const LONG_POLL: Duration = Duration::from_secs(30);

/// The major version. Versions with the same major version understand each other.
const MAJOR: &str = env!("CARGO_PKG_VERSION_MAJOR");

/// A header that fleetd sends for each warning about an accepted request.
const WARNING: &str = "x-fleet-warning";

/// The reason why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There was no response.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// fleetd refused, with this message.
    #[error("{message}")]
    Refused { code: StatusCode, message: String },
    /// The response is not one of fleetd's.
    #[error("cannot read the answer of {endpoint} to {path}: {why}; {NOT_FLEETD}")]
    Unreadable {
        endpoint: Endpoint,
        path: String,
        why: serde_json::Error,
    },
    /// The server speaks HTTP but is not fleetd.
    #[error("{endpoint} answers HTTP {code}, and not as fleetd does; {NOT_FLEETD}")]
    NotFleetd {
        endpoint: Endpoint,
        code: StatusCode,
    },
    /// fleetd has another major version, so its API may have another meaning.
    #[error(
        "{endpoint} is fleetd {version}, and this fleetctl is v{}: use the fleetctl of that version",
        env!("CARGO_PKG_VERSION")
    )]
    OtherVersion { endpoint: Endpoint, version: String },
}

/// The API of one fleetd.
pub(crate) struct Client {
    connection: Connection,
    /// Further connections, left open after many requests were made at once.
    spare: Vec<Connection>,
    timeout: Duration,
    /// The last warning received.
    warned: Option<String>,
}

impl Client {
    /// Returns a client of `endpoint`, through a tunnel that of another machine. The first request
    /// connects. Each request ends within `timeout`.
    pub(crate) fn new(
        endpoint: Endpoint,
        tunnel: Option<Tunnel>,
        tls: Option<TlsFiles>,
        timeout: Duration,
    ) -> Self {
        Self {
            connection: Connection::new(endpoint, tunnel, tls),
            spare: Vec::new(),
            timeout,
            warned: None,
        }
    }

    /// Returns all live machines, ordered by id. With details, each has its version of fleetd.
    pub(crate) async fn machines(&mut self, details: bool) -> Result<Vec<Machine>, ClientError> {
        let open = page_of(|page: MachinePage| (page.machines, page.next_page_token));
        self.pages("machines", details_query(details), open).await
    }

    /// Returns all units, ordered by name, without their contents and current states.
    pub(crate) async fn units(&mut self) -> Result<Vec<Unit>, ClientError> {
        self.all_units(Some("currentState=false".to_owned())).await
    }

    /// Returns all units with their current states. For these, fleetd reads every machine's report.
    pub(crate) async fn units_with_states(&mut self) -> Result<Vec<Unit>, ClientError> {
        self.all_units(None).await
    }

    async fn all_units(&mut self, parameter: Option<String>) -> Result<Vec<Unit>, ClientError> {
        let open = page_of(|page: UnitPage| (page.units, page.next_page_token));
        self.pages("units", parameter, open).await
    }

    /// Returns a unit with its content. `None` if the registry has no unit of that name.
    pub(crate) async fn unit(&mut self, name: &UnitName) -> Result<Option<Unit>, ClientError> {
        let path = format!("units/{}?content=true", encode(name.as_str()));
        found(self.get(&path, self.timeout).await)
    }

    /// Creates a unit, or changes its content and target state. With `replaces`, fleetd refuses the
    /// content if the unit has another newest revision.
    pub(crate) async fn put_unit(
        &mut self,
        name: &UnitName,
        content: Option<Content>,
        target: TargetState,
        replaces: Option<u64>,
    ) -> Result<(), ClientError> {
        let unit = Unit {
            name: name.to_string(),
            content,
            desired_state: target.to_string(),
            ..Unit::default()
        };
        let path = format!("units/{}", encode(name.as_str()));
        let payload = Payload {
            json: Some(json(&unit)),
            replaces,
        };
        self.ask(Method::PUT, &path, payload, self.timeout).await?;
        Ok(())
    }

    /// Removes a unit. Returns whether it existed.
    pub(crate) async fn destroy_unit(&mut self, name: &str) -> Result<bool, ClientError> {
        let path = format!("units/{}", encode(name));
        found(self.send(Method::DELETE, &path, None::<&()>).await).map(|gone| gone.is_some())
    }

    /// Returns the summary of the cluster.
    pub(crate) async fn cluster_status(&mut self) -> Result<ClusterStatus, ClientError> {
        self.get("status", self.timeout).await
    }

    /// Returns a unit on every machine. `None` if there is no such unit.
    ///
    /// With a registry revision, waits up to 30 seconds for a change after it.
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

    /// Returns whether the queried machine follows its registry.
    pub(crate) async fn registry(&mut self) -> Result<RegistryStanding, ClientError> {
        self.get("registry", self.timeout).await
    }

    /// Accepts the registry as it is, for every machine of the queried machine's cluster.
    pub(crate) async fn accept_registry(
        &mut self,
        body: &AcceptBody,
    ) -> Result<RegistryStanding, ClientError> {
        self.post("registry", body).await
    }

    /// Changes the metadata of machines, all or nothing.
    pub(crate) async fn patch_machines(&mut self, ops: &[MetadataOp]) -> Result<(), ClientError> {
        self.send(Method::PATCH, "machines", Some(ops)).await
    }

    async fn get<T: DeserializeOwned>(
        &mut self,
        path: &str,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let body = self
            .ask(Method::GET, path, Payload::default(), timeout)
            .await?;
        self.read(path, &body)
    }

    /// Sends a POST request and reads the response's document.
    async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let answer = self
            .ask(Method::POST, path, Some(json(body)).into(), self.timeout)
            .await?;
        self.read(path, &answer)
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|why| self.unreadable(path, why))
    }

    fn unreadable(&self, path: &str, why: serde_json::Error) -> ClientError {
        ClientError::Unreadable {
            endpoint: self.connection.endpoint().clone(),
            path: path.to_owned(),
            why,
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<(), ClientError> {
        let payload = body.map(json).into();
        self.ask(method, path, payload, self.timeout).await?;
        Ok(())
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        payload: Payload,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let path = format!("{V1}/{path}");
        let (parts, body) = self
            .connection
            .exchange(method, &path, payload, timeout)
            .await?;
        self.heed(&parts)?;
        match parts.status.is_success() {
            true => Ok(body),
            false => Err(self.refusal(parts.status, &body)),
        }
    }

    /// Checks the server's version, and prints its warnings.
    fn heed(&mut self, parts: &Parts) -> Result<(), ClientError> {
        let server = parts.headers.get(SERVER).and_then(|it| it.to_str().ok());
        if let Some(version) = server.and_then(other_version) {
            return Err(ClientError::OtherVersion {
                endpoint: self.connection.endpoint().clone(),
                version: version.to_owned(),
            });
        }
        for warning in parts.headers.get_all(WARNING) {
            let warning = String::from_utf8_lossy(warning.as_bytes());
            // A command may make many requests, and each has the same warning.
            if self.warned.as_deref() != Some(&*warning) {
                talk(format_args!("WARNING: {warning}"));
                self.warned = Some(warning.into_owned());
            }
        }
        Ok(())
    }

    fn refusal(&self, code: StatusCode, body: &[u8]) -> ClientError {
        refusal(code, body).unwrap_or_else(|| ClientError::NotFleetd {
            endpoint: self.connection.endpoint().clone(),
            code,
        })
    }
}

fn json(body: &(impl Serialize + ?Sized)) -> Vec<u8> {
    serde_json::to_vec(body).expect("API types are maps with text keys")
}

/// Returns fleetd's message for a refusal, or at least the HTTP status. `None` if it is not
/// fleetd's refusal.
fn refusal(code: StatusCode, body: &[u8]) -> Option<ClientError> {
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    let message = match body.error.message {
        none if none.is_empty() => format!("fleetd answered HTTP {code} without saying why"),
        message => message,
    };
    Some(ClientError::Refused { code, message })
}

/// Returns the version of an incompatible fleetd from its `Server` header `fleetd/v1.2.3`. A server
/// without a version may be anything: a proxy has its own header.
fn other_version(server: &str) -> Option<&str> {
    let version = server.strip_prefix("fleetd/")?;
    let major = version.trim_start_matches('v').split('.').next();
    (major != Some(MAJOR)).then_some(version)
}

/// Reads a page whose type owns its content.
fn page_of<P: DeserializeOwned, T>(
    take: impl Fn(P) -> Page<T>,
) -> impl Fn(&[u8]) -> serde_json::Result<Page<T>> {
    move |page| serde_json::from_slice(page).map(&take)
}

/// Returns the query for details that fleet 1.0's responses do not have.
fn details_query(details: bool) -> Option<String> {
    details.then(|| "details=true".to_owned())
}

/// Returns `None` for the error "not found".
fn found<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Err(ClientError::Refused {
            code: StatusCode::NOT_FOUND,
            ..
        }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Encodes a text for a URL. Unit names may contain `\` and `@`, page tokens `+` and `=`.
fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_has_fleetds_message() {
        let error = refusal(
            StatusCode::BAD_REQUEST,
            br#"{"error":{"code":400,"message":"cannot activate template \"t@.service\""}}"#,
        );
        let error = error.expect("a refusal");
        assert_eq!(error.to_string(), "cannot activate template \"t@.service\"");
    }

    #[test]
    fn refusal_without_a_message_shows_the_status() {
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        let error = refusal(code, br#"{"error":{"code":500,"message":""}}"#);
        assert_eq!(
            error.expect("a refusal").to_string(),
            "fleetd answered HTTP 500 Internal Server Error without saying why"
        );
        for body in [&b"<html>"[..], b"", b"{}"] {
            assert!(refusal(code, body).is_none());
        }
    }

    #[test]
    fn fleetd_of_another_major_version_is_refused() {
        let ours = concat!("fleetd/v", env!("CARGO_PKG_VERSION"));
        for understood in [ours, "nginx/1.22.1", ""] {
            assert_eq!(other_version(understood), None);
        }
        assert_eq!(other_version("fleetd/v99.0.1"), Some("v99.0.1"));
    }

    #[test]
    fn names_and_tokens_are_encoded_in_a_url() {
        assert_eq!(encode("a\\x2d@1.mount").to_string(), "a%5Cx2d%401%2Emount");
        assert_eq!(encode("ZAAC+A==").to_string(), "ZAAC%2BA%3D%3D");
    }
}
