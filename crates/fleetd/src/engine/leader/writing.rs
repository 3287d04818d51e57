//! How a leader writes what it decided, with the events of it.

use fleet_core::record;

use super::super::commit::Decision;
use super::super::events::line;
use super::Leadership;
use crate::store::{Guard, Result, Write};

impl Leadership<'_> {
    pub(super) async fn commit_all(&mut self, decisions: Vec<Decision>) -> Result<()> {
        for decision in decisions {
            self.engine.heart.still_busy();
            self.commit(decision).await?;
        }
        Ok(())
    }

    pub(super) async fn commit(&mut self, mut decision: Decision) -> Result<()> {
        self.write_events(&mut decision);
        self.send(decision).await
    }

    /// Puts its events among its writes.
    pub(super) fn write_events(&mut self, decision: &mut Decision) {
        let wall = (self.engine.clock)();
        for event in &mut decision.events {
            // For people, whose clock may have been set meanwhile.
            event.at = wall;
            let key = self.events.add(event.at);
            decision.guards.push(Guard::Absent(key.clone()));
            decision.writes.push(Write::Put {
                key,
                value: record::encode(event),
                lease: None,
            });
        }
    }

    pub(super) async fn send(&mut self, decision: Decision) -> Result<()> {
        let Decision {
            mut guards,
            writes,
            events,
        } = decision;
        guards.push(self.claim.guard());
        let revision = self.engine.store.commit(guards, writes.clone()).await?;
        self.written = self.written.max(revision);
        self.index.wrote(writes, revision);
        for event in &events {
            tracing::info!("{}", line(event));
        }
        self.prune().await
    }

    async fn prune(&mut self) -> Result<()> {
        let oldest = self.events.surplus();
        if oldest.is_empty() {
            return Ok(());
        }
        let writes = oldest.iter().cloned().map(Write::Delete).collect();
        let store = &self.engine.store;
        store.commit(vec![self.claim.guard()], writes).await?;
        self.events.removed(&oldest);
        Ok(())
    }
}
