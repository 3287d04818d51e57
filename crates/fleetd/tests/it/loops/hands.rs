//! The fake systemd behind calls that take time, fail for one unit, or never answer again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::unit::{Content, UnitName};
use fleetd::systemd::fake::Fake;
use fleetd::systemd::{Details, Dirty, Ended, Links, OnDisk, Result, State, Systemd, SystemdError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// A machine's systemd as its agent reaches it.
pub(crate) struct Hands {
    pub(crate) systemd: Arc<Fake>,
    faults: Mutex<Faults>,
    /// An agent has come to where it stays.
    pub(crate) stuck: Notify,
    released: Notify,
    /// Is told of every call that changes a unit, before it is made.
    pub(crate) witness: Mutex<Option<Witness>>,
}

pub(crate) type Witness = Box<dyn Fn(&UnitName, &str) + Send>;

#[derive(Default)]
struct Faults {
    /// Moments, one before and one after each call, that are left before a call never returns.
    moments: Option<u32>,
    /// `method unit`: what fails, and how.
    failing: BTreeMap<String, SystemdError>,
    /// When what fails was tried.
    tried: Vec<Instant>,
    /// How long a call takes before it is made, and again before it returns.
    takes: Duration,
}

impl Hands {
    pub(crate) fn on(systemd: Arc<Fake>) -> Self {
        Self {
            systemd,
            faults: Mutex::default(),
            stuck: Notify::new(),
            released: Notify::new(),
            witness: Mutex::default(),
        }
    }

    /// After that many moments a call does not return; none: all do.
    pub(crate) fn last(&self, moments: Option<u32>) {
        self.faults().moments = moments;
    }

    /// Lets the call that did not return do so, and every other one.
    pub(crate) fn release(&self) {
        self.last(None);
        self.released.notify_waiters();
    }

    /// From now on this method fails for this unit, or (none) no longer does.
    pub(crate) fn fail(&self, method: &str, unit: &UnitName, error: Option<SystemdError>) {
        let call = format!("{method} {unit}");
        let mut faults = self.faults();
        match error {
            Some(error) => faults.failing.insert(call, error),
            None => faults.failing.remove(&call),
        };
    }

    /// When calls that fail were made. Empty again afterwards.
    pub(crate) fn take_tried(&self) -> Vec<Instant> {
        std::mem::take(&mut self.faults().tried)
    }

    /// From now on each call takes twice that long.
    pub(crate) fn take(&self, time: Duration) {
        self.faults().takes = time;
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn moment(&self) {
        let over = match &mut self.faults().moments {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if over {
            self.stuck.notify_one();
            self.released.notified().await;
        }
        let takes = self.faults().takes;
        sleep(takes.max(Duration::from_micros(100))).await;
    }

    async fn call<T>(
        &self,
        method: &str,
        unit: &UnitName,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.moment().await;
        let failing = {
            let mut faults = self.faults();
            let error = faults.failing.get(&format!("{method} {unit}")).cloned();
            if error.is_some() {
                faults.tried.push(Instant::now());
            }
            error
        };
        let looks = matches!(method, "details" | "foreign");
        if let Some(witness) = (*self.witness.lock().unwrap_or_else(PoisonError::into_inner))
            .as_ref()
            .filter(|_| !looks)
        {
            witness(unit, method);
        }
        let answer = match failing {
            Some(error) => Err(error),
            None => call.await,
        };
        self.moment().await;
        answer
    }
}

#[async_trait]
impl Systemd for Hands {
    async fn changed(&self) -> Dirty {
        self.systemd.changed().await
    }

    fn looking(&self, names: &BTreeSet<UnitName>) -> BTreeSet<UnitName> {
        self.systemd.looking(names)
    }

    fn ended(&self, name: &UnitName) -> Option<Ended> {
        self.systemd.ended(name)
    }

    fn forget(&self, name: &UnitName) {
        self.systemd.forget(name);
    }

    async fn soft_reboots(&self) -> Result<u32> {
        self.systemd.soft_reboots().await
    }

    async fn is_shutting_down(&self) -> bool {
        self.systemd.is_shutting_down().await
    }

    async fn files(&self) -> Result<BTreeMap<UnitName, Content>> {
        self.moment().await;
        self.systemd.files().await
    }

    async fn states(&self, names: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, State>> {
        self.moment().await;
        self.systemd.states(names).await
    }

    async fn details(&self, name: &UnitName, state: &State) -> Result<Details> {
        let details = self.systemd.details(name, state);
        self.call("details", name, details).await
    }

    async fn on_disk(&self, name: &UnitName) -> Result<OnDisk> {
        self.systemd.on_disk(name).await
    }

    async fn foreign(&self, name: &UnitName, state: &State) -> Result<Option<String>> {
        let foreign = self.systemd.foreign(name, state);
        self.call("foreign", name, foreign).await
    }

    async fn write(&self, name: &UnitName, content: &Content) -> Result<()> {
        let write = self.systemd.write(name, content);
        self.call("write", name, write).await
    }

    async fn link(&self, name: &UnitName, links: Links) -> Result<()> {
        let link = self.systemd.link(name, links);
        self.call("link", name, link).await
    }

    async fn remove(&self, name: &UnitName) -> Result<()> {
        self.call("remove", name, self.systemd.remove(name)).await
    }

    async fn reload(&self) -> Result<()> {
        self.moment().await;
        let answer = self.systemd.reload().await;
        self.moment().await;
        answer
    }

    async fn start(&self, name: &UnitName) -> Result<()> {
        self.call("start", name, self.systemd.start(name)).await
    }

    async fn restart(&self, name: &UnitName) -> Result<()> {
        self.call("restart", name, self.systemd.restart(name)).await
    }

    async fn stop(&self, name: &UnitName) -> Result<()> {
        self.call("stop", name, self.systemd.stop(name)).await
    }
}
