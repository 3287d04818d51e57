//! Renewals of leases, each over a stream that is opened once and kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::timeout;

use super::endpoints::{Connection, Endpoints, Repeat};
use super::failure::Failure;
use super::patience::Patience;
use crate::store::{LeaseId, Result, StoreError};

/// The streams of the leases that this process renews.
#[derive(Default)]
pub(super) struct KeepAlives(Mutex<BTreeMap<LeaseId, KeepAlive>>);

struct KeepAlive {
    connection: Arc<Connection>,
    requests: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl KeepAlives {
    /// Renews a lease over its stream, or over a new stream if there is none that works.
    pub(super) async fn renew(
        &self,
        endpoints: &Endpoints,
        patience: &Patience,
        lease: LeaseId,
    ) -> Result<()> {
        // The stream is taken out of the map while in use. If the caller stops waiting, it is
        // dropped with its pending answer. The next renewal would mistake that answer for its own.
        let kept = self.streams().remove(&lease);
        let limit = patience.limit(endpoints.request_timeout());
        if let Some(mut stream) = kept {
            match timeout(limit, stream.renew()).await {
                Ok(Ok(())) => {
                    self.streams().insert(lease, stream);
                    return Ok(());
                }
                Ok(Err(Failure::Final(answer))) => return Err(answer),
                Ok(Err(failure)) => endpoints.failed_on(&stream.connection, &failure),
                Err(_) => {
                    patience.was_late(limit);
                    let late = Failure::Late("a renewal got no answer".to_owned());
                    endpoints.failed_on(&stream.connection, &late);
                }
            }
        }
        let open = |connection| KeepAlive::open(connection, lease);
        let stream = endpoints.call(patience, Repeat::Always, open).await?;
        self.streams().insert(lease, stream);
        Ok(())
    }

    /// Closes a lease's stream.
    pub(super) fn forget(&self, lease: LeaseId) {
        self.streams().remove(&lease);
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<LeaseId, KeepAlive>> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}

impl KeepAlive {
    /// Opens a stream, which renews the lease for the first time.
    async fn open(connection: Arc<Connection>, lease: LeaseId) -> Result<Self, Failure> {
        let opened = connection.lease().keep_alive(lease.0).await;
        let (requests, answers) = opened.map_err(|error| match error {
            // The client's error for a lease that has ended.
            Error::LeaseKeepAliveError(_) => Failure::Final(StoreError::LeaseLost),
            other => other.into(),
        })?;
        Ok(Self {
            connection,
            requests,
            answers,
        })
    }

    async fn renew(&mut self) -> Result<(), Failure> {
        self.requests.keep_alive().await?;
        match self.answers.message().await? {
            Some(answer) if answer.ttl() > 0 => Ok(()),
            Some(_) => Err(Failure::Final(StoreError::LeaseLost)),
            None => Err(Failure::Unknown("the stream was ended".into())),
        }
    }
}
