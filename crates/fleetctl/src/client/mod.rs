//! Asks fleetd: the API's resources as functions.

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

/// fleetd holds a long poll open for up to this long.
const LONG_POLL: Duration = Duration::from_secs(30);

/// Versions with the same first number understand each other.
const MAJOR: &str = env!("CARGO_PKG_VERSION_MAJOR");

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
    /// An answer that is not what fleetd gives.
    #[error("cannot read the answer of {endpoint} to {path}: {why}; {NOT_FLEETD}")]
    Unreadable {
        endpoint: Endpoint,
        path: String,
        why: serde_json::Error,
    },
    /// An HTTP server, but not fleetd.
    #[error("{endpoint} answers HTTP {code}, and not as fleetd does; {NOT_FLEETD}")]
    NotFleetd {
        endpoint: Endpoint,
        code: StatusCode,
    },
    /// A fleetd whose API may mean something else.
    #[error(
        "{endpoint} is fleetd {version}, and this fleetctl is v{}: use the fleetctl of that version",
        env!("CARGO_PKG_VERSION")
    )]
    OtherVersion { endpoint: Endpoint, version: String },
}

/// The API of one fleetd.
pub(crate) struct Client {
    connection: Connection,
    /// Connections that are open beside it since many things were asked at once.
    spare: Vec<Connection>,
    timeout: Duration,
    /// What it was warned of last.
    warned: Option<String>,
}

impl Client {
    /// Prepares to talk to `endpoint`, of another machine if through a tunnel; connects with the
    /// first request. Each request ends within `timeout`.
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

    /// All live machines, ordered by id. With details: the version of fleetd on each.
    pub(crate) async fn machines(&mut self, details: bool) -> Result<Vec<Machine>, ClientError> {
        let open = page_of(|page: MachinePage| (page.machines, page.next_page_token));
        self.pages("machines", details_query(details), open).await
    }

    /// All units, ordered by name, without their content and their current states.
    pub(crate) async fn units(&mut self) -> Result<Vec<Unit>, ClientError> {
        self.all_units(Some("currentState=false".to_owned())).await
    }

    /// The same with their current states, for which fleetd reads what every machine reports.
    pub(crate) async fn units_with_states(&mut self) -> Result<Vec<Unit>, ClientError> {
        self.all_units(None).await
    }

    async fn all_units(&mut self, parameter: Option<String>) -> Result<Vec<Unit>, ClientError> {
        let open = page_of(|page: UnitPage| (page.units, page.next_page_token));
        self.pages("units", parameter, open).await
    }

    /// A unit with its content, or none if the registry has no unit of that name.
    pub(crate) async fn unit(&mut self, name: &UnitName) -> Result<Option<Unit>, ClientError> {
        let path = format!("units/{}?content=true", encode(name.as_str()));
        found(self.get(&path, self.timeout).await)
    }

    /// Creates a unit, or changes its content and target state. With `replaces`, fleetd refuses
    /// content if the unit has another newest revision than that.
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
    /// With a registry revision the answer comes when something has changed since, at the latest
    /// after 30 seconds.
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

    /// How the registry stands with the machine that is asked.
    pub(crate) async fn registry(&mut self) -> Result<RegistryStanding, ClientError> {
        self.get("registry", self.timeout).await
    }

    /// Accepts the registry as it is, for every machine of that one's cluster.
    pub(crate) async fn accept_registry(
        &mut self,
        body: &AcceptBody,
    ) -> Result<RegistryStanding, ClientError> {
        self.post("registry", body).await
    }

    /// Changes metadata of machines, all or nothing.
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

    /// Sends something that is answered with more than that it is done.
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

    /// Looks at who answers, and passes on what it warns of.
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
            // One command may ask many times, and is warned of the same thing each time.
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

/// fleetd's sentence on why it refuses, or at least the HTTP status; none if this is no refusal of
/// fleetd's.
fn refusal(code: StatusCode, body: &[u8]) -> Option<ClientError> {
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    let message = match body.error.message {
        none if none.is_empty() => format!("fleetd answered HTTP {code} without saying why"),
        message => message,
    };
    Some(ClientError::Refused { code, message })
}

/// The version of a fleetd that does not speak as this fleetctl does, from its `Server` header
/// `fleetd/v1.2.3`. Who gives no version may be anything: a proxy has its own header.
fn other_version(server: &str) -> Option<&str> {
    let version = server.strip_prefix("fleetd/")?;
    let major = version.trim_start_matches('v').split('.').next();
    (major != Some(MAJOR)).then_some(version)
}

/// Reads a page whose type owns all that it holds.
fn page_of<P: DeserializeOwned, T>(
    take: impl Fn(P) -> Page<T>,
) -> impl Fn(&[u8]) -> serde_json::Result<Page<T>> {
    move |page| serde_json::from_slice(page).map(&take)
}

/// Asks for what the original's answers do not have.
fn details_query(details: bool) -> Option<String> {
    details.then(|| "details=true".to_owned())
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
        let error = error.expect("a refusal");
        assert_eq!(error.to_string(), "cannot activate template \"t@.service\"");
    }

    #[test]
    fn a_refusal_without_a_sentence_shows_the_status() {
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
    fn only_a_fleetd_of_the_same_major_version_is_understood() {
        let ours = concat!("fleetd/v", env!("CARGO_PKG_VERSION"));
        for understood in [ours, "nginx/1.22.1", ""] {
            assert_eq!(other_version(understood), None);
        }
        assert_eq!(other_version("fleetd/v99.0.1"), Some("v99.0.1"));
    }

    #[test]
    fn names_and_tokens_survive_a_url() {
        assert_eq!(encode("a\\x2d@1.mount").to_string(), "a%5Cx2d%401%2Emount");
        assert_eq!(encode("ZAAC+A==").to_string(), "ZAAC%2BA%3D%3D");
    }
}
