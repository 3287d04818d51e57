//! The engine: one of them leads, and does what needs one hand for the whole fleet.
//!
//! It rolls updates out (`fleet_core::rollout`), notes which machines are offline, makes the
//! registry's cluster id, and clears away what is left of units and machines that are gone. Agents
//! decide for themselves what runs where; no engine is needed to start or stop anything. Scheduling
//! of units that are not global (`fleet_core::schedule`) belongs here too, as a pure step whose
//! writes are guarded by the claim.

mod commit;
mod election;
mod events;
#[cfg(test)]
mod fixture;
mod garbage;
mod index;
mod leader;
mod machine;
mod places;
mod presence;
mod rollout;
mod situation;
mod unit;

use std::sync::Arc;

use fleet_core::machine::MachineId;
use fleet_core::trust::Trust;
use tokio::sync::watch;

pub use self::election::Claim;
use self::leader::Leadership;
use crate::health::Heart;
use crate::registry;
use crate::store::Store;

/// The engine.
pub struct Engine {
    store: Arc<dyn Store>,
    me: MachineId,
    heart: Heart,
    claims: watch::Sender<Option<Claim>>,
    /// From the agent: how the registry stands with this machine.
    trust: watch::Receiver<Trust>,
    /// Gives the registry its id if it has none.
    new_cluster_id: Box<dyn Fn() -> String + Send + Sync>,
    /// Milliseconds since 1970.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Engine {
    /// An engine that does not run for leadership yet. `new_cluster_id` draws 32 random hexadecimal
    /// digits.
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
            trust: watch::channel(Trust::default()).1,
            new_cluster_id: Box::new(new_cluster_id),
            clock: Box::new(registry::now),
        }
    }

    /// An engine that takes the time from `clock`, in milliseconds since 1970.
    pub fn with_clock(self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let clock = Box::new(clock);
        Self { clock, ..self }
    }

    /// An engine that neither leads nor changes anything in a registry that this machine's agent
    /// holds.
    pub fn trusting(self, trust: watch::Receiver<Trust>) -> Self {
        Self { trust, ..self }
    }

    /// Follows whether this engine leads.
    pub fn claims(&self) -> watch::Receiver<Option<Claim>> {
        self.claims.subscribe()
    }

    /// Runs until `stop` says so; a leader then gives its claim back.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let mut claims = self.claims.subscribe();
        let running = election::run(
            self.store.clone(),
            self.me.clone(),
            self.claims.clone(),
            self.trust.clone(),
            stop,
        );
        tokio::select! {
            biased;
            () = running => {}
            () = self.lead(&mut claims) => {}
        }
    }

    async fn lead(&self, claims: &mut watch::Receiver<Option<Claim>>) {
        loop {
            let claim = claims.borrow_and_update().clone();
            let changed = match &claim {
                Some(claim) => {
                    tokio::select! {
                        biased;
                        changed = claims.changed() => changed,
                        never = Leadership::new(self, claim).run() => match never {},
                    }
                }
                None => claims.changed().await,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}
