//! This machine's presence and report in the registry, under one lease.
//!
//! The lease is all that moves while nothing changes: one keep-alive every third of its time. The report is
//! written when it has changed, the first time at once and then after a pause that gathers what follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, MachineRecord, MachineReport};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::store::{LeaseId, Result, Store, StoreError, Write};

/// The least time between two reports of one machine. A listing that is this old is as good as now to a person,
/// and starting fifty units costs a few writes instead of fifty.
const PAUSE: Duration = Duration::from_millis(50);

/// What goes into the registry for this machine.
pub(super) struct Session {
    pub(super) store: Arc<dyn Store>,
    pub(super) me: MachineId,
    pub(super) presence: MachineRecord,
    pub(super) ttl: Duration,
    /// From the agent.
    pub(super) report: watch::Receiver<MachineReport>,
    /// From the units directory, by subject.
    pub(super) directory: watch::Receiver<BTreeMap<String, String>>,
}

impl Session {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.me.as_str());
        let mut told = None;
        loop {
            let error = match self.hold(&mut backoff, &mut told).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // A registry may be away for days: each reason is told once in a row, not every two seconds.
            let error = error.to_string();
            if told.as_ref() != Some(&error) {
                tracing::warn!("this machine is not visible in the registry: {error}");
                told = Some(error);
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Takes a lease and keeps it, until an error that a new lease may mend. Forgets what was `told` once it has one.
    async fn hold(
        &mut self,
        backoff: &mut Backoff,
        told: &mut Option<String>,
    ) -> Result<std::convert::Infallible> {
        let lease = self.store.grant(self.ttl).await?;
        let mut written = self.current();
        self.write(lease, true, &written).await?;
        backoff.reset();
        *told = None;
        let mut quiet_until = Instant::now() + PAUSE;
        let mut renew_at = Instant::now() + self.ttl / 3;
        let mut lease_ends = Instant::now() + self.ttl;
        loop {
            let pending = self.current() != written;
            tokio::select! {
                biased;
                () = sleep_until(renew_at) => {
                    let asked = Instant::now();
                    match self.store.renew(lease).await {
                        Ok(()) => {
                            backoff.reset();
                            lease_ends = asked + self.ttl;
                            renew_at = asked + self.ttl / 3;
                        }
                        // The registry may come back before the lease ends; then nothing was lost.
                        Err(StoreError::Unavailable(_)) if Instant::now() < lease_ends => {
                            renew_at = Instant::now() + backoff.wait();
                        }
                        Err(error) => return Err(error),
                    }
                }
                () = sleep_until(quiet_until), if pending => {
                    let report = self.current();
                    self.write(lease, false, &report).await?;
                    written = report;
                    quiet_until = Instant::now() + PAUSE;
                }
                Ok(()) = self.report.changed() => {}
                Ok(()) = self.directory.changed() => {}
            }
        }
    }

    fn current(&self) -> MachineReport {
        let mut report = self.report.borrow().clone();
        report.problems.extend(self.directory.borrow().clone());
        report
    }

    async fn write(&self, lease: LeaseId, all: bool, report: &MachineReport) -> Result<()> {
        match self.put(lease, all, report).await {
            // Too large, say. A machine that cannot tell everything tells at least that.
            Err(StoreError::Rejected(why)) => {
                let problems = BTreeMap::from([("report".to_owned(), why)]);
                let units = BTreeMap::new();
                self.put(lease, all, &MachineReport { units, problems })
                    .await
            }
            done => done,
        }
    }

    async fn put(&self, lease: LeaseId, all: bool, report: &MachineReport) -> Result<()> {
        let put = |key, value| Write::Put {
            key,
            value,
            lease: Some(lease),
        };
        let mut writes = vec![put(keys::report(&self.me), record::encode(report))];
        if all {
            let presence = MachineRecord {
                session: lease.0,
                ..self.presence.clone()
            };
            let presence = record::encode(&presence);
            writes.push(put(keys::machine(&self.me), presence));
        }
        self.store.commit(Vec::new(), writes).await.map(|_| ())
    }
}
