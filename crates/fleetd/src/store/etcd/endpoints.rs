//! The endpoints of etcd, used one at a time. A connection is kept as long as it serves. Then the
//! next endpoint is used.
//!
//! A balanced channel over all endpoints keeps calling the dead ones; see
//! `docs/adr/0002-etcd-client.md`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use etcd_client::{Client, KvClient, LeaseClient, WatchClient};
use tokio::time::{Instant, sleep, timeout};

use super::config::EtcdConfig;
use super::failure::Failure;
use super::patience::Patience;
use crate::store::{Result, StoreError};

/// The size limit of a message. The whole registry is in one answer, and a watch that lags gets up
/// to 1,000 commits in one message. The client's default of 4 MiB is too small.
const MAX_MESSAGE: usize = 256 << 20;
/// The first pause after a failure. It doubles with each further failure, up to a limit. Each
/// client waits a random part of it, so that machines that lost a member together do not return
/// together.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Which requests may be repeated if no answer came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Requests that do no harm when made twice.
    Always,
    /// A commit. It is repeated only if it was certainly not applied.
    Unsent,
}

/// The endpoints, and the one in use.
pub(super) struct Endpoints {
    config: EtcdConfig,
    current: Mutex<Current>,
}

struct Current {
    /// The number of endpoints given up so far. Its remainder is the place of the present endpoint
    /// in the list.
    turn: usize,
    connection: Option<Arc<Connection>>,
    failures_in_a_row: u32,
    /// The places of endpoints that did not serve when last used, and were logged.
    told: BTreeSet<usize>,
}

/// The client of one endpoint, as long as it serves.
pub(super) struct Connection {
    turn: usize,
    endpoint: String,
    client: Client,
}

impl Connection {
    pub(super) fn kv(&self) -> KvClient {
        self.client
            .kv_client()
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn watch(&self) -> WatchClient {
        self.client
            .watch_client()
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn lease(&self) -> LeaseClient {
        self.client.lease_client()
    }

    /// Returns the error for a caller of the store.
    pub(super) fn error(&self, failure: Failure) -> StoreError {
        error(&self.endpoint, failure)
    }
}

impl Endpoints {
    /// Returns the endpoints without connecting to any.
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self {
            current: Mutex::new(Current {
                // All machines have the same list, so each starts at a random place.
                turn: random() as usize % config.endpoints.len(),
                connection: None,
                failures_in_a_row: 0,
                told: BTreeSet::new(),
            }),
            config,
        }
    }

    /// Returns the time limit of one request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    /// Makes a request. If it fails and a repetition is harmless, it is made again at the next
    /// endpoint. Each endpoint is used once, and one of them twice because a single one may just
    /// have been restarted. A late answer gets no second attempt.
    pub(super) async fn call<T, F>(
        &self,
        patience: &Patience,
        repeat: Repeat,
        request: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut causes: Vec<String> = Vec::new();
        let endpoints = self.config.endpoints.len();
        for asked in 1..=endpoints + 1 {
            let failures = self.current().failures_in_a_row;
            sleep(pause(failures, random())).await;
            let turn = self.current().turn;
            let endpoint = self.endpoint(turn);
            let failure = match self.attempt(turn, patience, &request).await {
                Ok(answer) => {
                    self.serves(turn);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let is_repeatable = match &failure {
                Failure::Final(_) => return Err(error(endpoint, failure)),
                Failure::Unsent(_) => true,
                Failure::Unknown(_) => repeat == Repeat::Always,
                Failure::Late(_) => repeat == Repeat::Always && asked < endpoints,
            };
            self.failed(turn, &failure);
            if let StoreError::Unavailable(cause) = error(endpoint, failure)
                && !causes.contains(&cause)
            {
                causes.push(cause);
            }
            if !is_repeatable {
                break;
            }
        }
        Err(StoreError::Unavailable(causes.join("; ")))
    }

    /// Records that a stream over that connection failed.
    pub(super) fn failed_on(&self, connection: &Connection, failure: &Failure) {
        self.failed(connection.turn, failure);
    }

    async fn attempt<T, F>(
        &self,
        turn: usize,
        patience: &Patience,
        request: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let first = self.config.request_timeout;
        let limit = patience.limit(first);
        let late = || format!("no answer within {limit:?}");
        let connect = timeout(limit, self.connection(turn)).await;
        let connection = connect.unwrap_or_else(|_| Err(Failure::Unsent(late())))?;
        let asked = Instant::now();
        match timeout(limit, request(connection)).await {
            Ok(answer) => {
                patience.was_answered(asked.elapsed(), first);
                answer
            }
            Err(_) => {
                patience.was_late(limit);
                Err(Failure::Late(late()))
            }
        }
    }

    /// Returns the connection of that turn. Only a login is sent here. Without one, the client
    /// connects with its first request.
    async fn connection(&self, turn: usize) -> Result<Arc<Connection>, Failure> {
        if let Some(connection) = &self.current().connection
            && connection.turn == turn
        {
            return Ok(Arc::clone(connection));
        }
        let endpoint = self.endpoint(turn);
        let options = (self.config.connect_options(endpoint))
            .map_err(|error| Failure::Unsent(error.to_string()))?;
        let client = Client::connect([endpoint], Some(options)).await;
        let connection = Arc::new(Connection {
            turn,
            endpoint: endpoint.to_owned(),
            client: client.map_err(|error| match Failure::from(error) {
                Failure::Unknown(text) => Failure::Unsent(text),
                other => other,
            })?,
        });
        let mut current = self.current();
        if current.turn == turn {
            // Two tasks may have connected at once. The later connection stays, and the other one
            // serves its request.
            current.connection = Some(Arc::clone(&connection));
        }
        Ok(connection)
    }

    fn serves(&self, turn: usize) {
        let mut current = self.current();
        current.failures_in_a_row = 0;
        if current.told.remove(&self.place(turn)) {
            tracing::info!("etcd {} answers again", self.endpoint(turn));
        }
    }

    /// Makes later requests use another connection, if this one served badly.
    fn failed(&self, turn: usize, failure: &Failure) {
        let Some(why) = failure.silence() else {
            return;
        };
        let mut current = self.current();
        // Many requests may fail with one connection. Only the first of them ends its turn.
        if current.turn != turn {
            return;
        }
        current.failures_in_a_row = current.failures_in_a_row.saturating_add(1);
        // The only member is busy, and another connection would be more work for it. If this
        // connection is dead, its pings show that.
        if matches!(failure, Failure::Late(_)) && self.config.endpoints.len() == 1 {
            return;
        }
        let next = turn.wrapping_add(1);
        current.turn = next;
        current.connection = None;
        // If one of several members is down, only this log line shows it. If the only member is
        // down, the callers report it.
        if self.config.endpoints.len() > 1 && current.told.insert(self.place(turn)) {
            let (endpoint, next) = (self.endpoint(turn), self.endpoint(next));
            tracing::warn!("etcd {endpoint} does not serve, {next} is asked instead: {why}");
        }
    }

    fn place(&self, turn: usize) -> usize {
        turn % self.config.endpoints.len()
    }

    fn endpoint(&self, turn: usize) -> &str {
        &self.config.endpoints[self.place(turn)]
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current
            .lock()
            .expect("nothing panics while it holds this")
    }
}

fn error(endpoint: &str, failure: Failure) -> StoreError {
    match failure {
        Failure::Unsent(text) | Failure::Unknown(text) | Failure::Late(text) => {
            StoreError::Unavailable(format!("etcd {endpoint}: {text}"))
        }
        Failure::Final(StoreError::Rejected(text)) => {
            StoreError::Rejected(format!("etcd {endpoint}: {text}"))
        }
        Failure::Final(StoreError::Denied(text)) => {
            StoreError::Denied(format!("etcd {endpoint}: {text}"))
        }
        Failure::Final(answer) => answer,
    }
}

/// Returns the pause before a connection after so many failures.
fn pause(failures_in_a_row: u32, random: u32) -> Duration {
    let Some(doublings) = failures_in_a_row.checked_sub(1) else {
        return Duration::ZERO;
    };
    let limit = FIRST_PAUSE
        .saturating_mul(1 << doublings.min(16))
        .min(MAX_PAUSE);
    limit.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Returns a random number, only to spread load. Without a source of randomness all machines start
/// alike, and nothing else changes.
fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_with_failures_up_to_a_second() {
        assert_eq!(pause(0, u32::MAX), Duration::ZERO);
        assert_eq!(pause(1, u32::MAX), Duration::from_millis(25));
        assert_eq!(pause(2, u32::MAX), Duration::from_millis(50));
        assert_eq!(pause(u32::MAX, u32::MAX), MAX_PAUSE);
        assert_eq!(pause(u32::MAX, 0), Duration::ZERO);
    }
}
