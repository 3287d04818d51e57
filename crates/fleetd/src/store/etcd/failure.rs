//! The next step after a failed request: ask another endpoint, give up, or pass the answer on.

use std::error::Error as _;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::store::StoreError;

/// Why a request to one endpoint failed. The texts do not name the endpoint yet.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request was certainly not applied. Another endpoint or a new login may serve it.
    Unsent(String),
    /// No answer came, so the request may have been applied.
    Unknown(String),
    /// No answer came in time, or etcd reports that it has too much to do. The request may have
    /// been applied. Repeating it at once makes the load worse.
    Late(String),
    /// etcd has answered, and every endpoint would answer the same.
    Final(StoreError),
}

type Cause = dyn std::error::Error + 'static;

impl Failure {
    /// Returns why no answer came. `None` if one did.
    pub(super) fn silence(&self) -> Option<&str> {
        match self {
            Self::Unsent(why) | Self::Unknown(why) | Self::Late(why) => Some(why),
            Self::Final(_) => None,
        }
    }

    fn rejected(text: String) -> Self {
        Self::Final(StoreError::Rejected(text))
    }

    fn denied(text: String) -> Self {
        Self::Final(StoreError::Denied(text))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => of_status(&status),
            Error::InvalidArgs(_) | Error::InvalidUri(_) => Self::rejected(error.to_string()),
            Error::TransportError(cause) => Self::Unknown(chain(String::new(), cause.source())),
            other => Self::Unknown(other.to_string()),
        }
    }
}

fn of_status(status: &Status) -> Failure {
    let message = status.message();
    let message = message.strip_prefix("etcdserver: ").unwrap_or(message);
    let says = |part: &str| message.contains(part);
    let text = chain(message.to_owned(), status.source());
    match status.code() {
        Code::Unauthenticated => Failure::Unsent(text),
        Code::InvalidArgument if says("auth store is old") => Failure::Unsent(text),
        Code::Unavailable if says("no leader") || is_connect_error(status) => Failure::Unsent(text),
        Code::NotFound if says("lease not found") => Failure::Final(StoreError::LeaseLost),
        Code::InvalidArgument if says("authentication failed") => {
            Failure::denied(format!("{text}; check etcd_username and etcd_password"))
        }
        Code::InvalidArgument if says("user name is empty") => {
            Failure::denied(format!("{text}; set etcd_username and etcd_password"))
        }
        Code::FailedPrecondition if says("authentication is not enabled") => Failure::denied(
            format!("{text}; remove etcd_username, or enable it in etcd"),
        ),
        Code::PermissionDenied => Failure::denied(format!(
            "{text}; grant this etcd user a role that reads and writes below etcd_key_prefix"
        )),
        Code::ResourceExhausted if says("space exceeded") => Failure::rejected(format!(
            "{text}; compact and defragment etcd, then disarm its alarm"
        )),
        Code::ResourceExhausted if says("too many requests") => Failure::Late(text),
        Code::Unavailable if says("request timed out") => Failure::Late(text),
        // etcd does not report which revisions it keeps.
        Code::OutOfRange if says("required revision") => Failure::Final(StoreError::Compacted(0)),
        Code::ResourceExhausted | Code::InvalidArgument | Code::OutOfRange => {
            Failure::rejected(text)
        }
        _ => Failure::Unknown(text),
    }
}

fn is_connect_error(status: &Status) -> bool {
    causes(status.source()).any(|cause| cause.is::<ConnectError>())
}

/// Returns the text and all its causes. The client's layers repeat each other, so each text appears
/// once.
fn chain(text: String, source: Option<&Cause>) -> String {
    let mut parts = vec![text];
    for cause in causes(source) {
        let cause = uncapitalised(&cause.to_string());
        if cause != "transport error" && !parts.iter().any(|part| part.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(": ")
}

fn causes(first: Option<&Cause>) -> impl Iterator<Item = &Cause> {
    std::iter::successors(first, |cause| (**cause).source())
}

/// Returns `Connection refused` as `connection refused`. `TLS` stays.
fn uncapitalised(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first
            .to_lowercase()
            .chain([second])
            .chain(letters)
            .collect(),
        _ => text.to_owned(),
    }
}
