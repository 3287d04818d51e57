//! The engine: one of them leads, and does what needs one hand for the whole fleet.
//!
//! It makes the registry's cluster id and clears away what destroyed units left. Agents decide for themselves what
//! runs where; no engine is needed to start or stop anything. Rollouts (`fleet_core::rollout`) and, for units that
//! are not global, scheduling (`fleet_core::schedule`) belong here, each as a pure step whose writes are guarded by
//! the claim.

mod leader;

use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, ClusterRecord};
use tokio::sync::watch;

pub use self::leader::Claim;
use crate::backoff::Backoff;
use crate::health::Heart;
use crate::store::{Guard, Result, Store, StoreError, Write};

/// Writes of one commit; etcd takes 128 operations, guards among them.
const BATCH: usize = 60;

/// The engine.
pub struct Engine {
    store: Arc<dyn Store>,
    me: MachineId,
    heart: Heart,
    claims: watch::Sender<Option<Claim>>,
    /// Gives the registry its id if it has none.
    new_cluster_id: Box<dyn Fn() -> String + Send + Sync>,
}

impl Engine {
    /// An engine that does not run for leadership yet. `new_cluster_id` draws 32 random hexadecimal digits.
    pub fn new(
        store: Arc<dyn Store>,
        me: MachineId,
        heart: Heart,
        new_cluster_id: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            me,
            heart,
            claims: watch::Sender::default(),
            new_cluster_id: Box::new(new_cluster_id),
        }
    }

    /// Follows whether this engine leads.
    pub fn claims(&self) -> watch::Receiver<Option<Claim>> {
        self.claims.subscribe()
    }

    /// Runs until `stop` says so; a leader then gives its claim back.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let mut claims = self.claims.subscribe();
        let running = leader::run(
            self.store.clone(),
            self.me.clone(),
            self.claims.clone(),
            stop,
        );
        tokio::select! {
            () = running => {}
            () = self.lead(&mut claims) => {}
        }
    }

    async fn lead(&self, claims: &mut watch::Receiver<Option<Claim>>) {
        let mut backoff = Backoff::new(self.me.as_str());
        loop {
            let claim = claims.borrow_and_update().clone();
            let done = match &claim {
                Some(claim) => {
                    let _busy = self.heart.busy();
                    self.tidy(claim).await
                }
                None => Ok(()),
            };
            match done {
                // A refusal means that the claim is lost, which is on its way here; so both wait for a change.
                Ok(()) | Err(StoreError::Refused) => {
                    backoff.reset();
                    if claims.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!("the leader's work waits: {error}");
                    wait(claims, backoff.wait()).await;
                }
            }
        }
    }

    /// What a new leader does once.
    async fn tidy(&self, claim: &Claim) -> Result<()> {
        let snapshot = self
            .store
            .list(&[keys::CLUSTER, keys::UNITS, keys::HISTORY])
            .await?;
        if !snapshot.entries.contains_key(keys::CLUSTER) {
            let id = (self.new_cluster_id)();
            tracing::info!(cluster = %id, "the registry is new and has its id now");
            let write = Write::Put {
                key: keys::CLUSTER.to_owned(),
                value: record::encode(&ClusterRecord { id }),
                lease: None,
            };
            let guards = vec![claim.guard(), Guard::Absent(keys::CLUSTER.to_owned())];
            self.store.commit(guards, vec![write]).await?;
        }
        let left: Vec<(Guard, Write)> = snapshot
            .entries
            .iter()
            .filter(|(key, _)| {
                let unit = key
                    .strip_prefix(keys::HISTORY)
                    .and_then(|rest| rest.split_once('/'));
                unit.is_some_and(|(name, _)| {
                    !snapshot
                        .entries
                        .contains_key(&format!("{}{name}", keys::UNITS))
                })
            })
            .map(|(key, entry)| {
                // Not the history of a unit that was made anew meanwhile.
                let guard = Guard::Unmodified(key.clone(), entry.modified);
                (guard, Write::Delete(key.clone()))
            })
            .collect();
        for batch in left.chunks(BATCH) {
            let (mut guards, writes): (Vec<_>, Vec<_>) = batch.iter().cloned().unzip();
            guards.push(claim.guard());
            self.store.commit(guards, writes).await?;
        }
        Ok(())
    }
}

/// Waits that long, or until the claim changes.
async fn wait(claims: &mut watch::Receiver<Option<Claim>>, time: Duration) {
    tokio::select! {
        _ = claims.changed() => {}
        () = tokio::time::sleep(time) => {}
    }
}
