//! Machines without the cost of their own agent.
//!
//! In real life each machine has a processor of its own, and the work of its agent costs the fleet
//! nothing. Here all agents share two cores. A fleet of a hundred agents among thousands of these
//! machines is closer to real life. Each of them is a connection, a lease, a presence and a watch
//! like an agent's. It reports a started unit in a commit like an agent's, after the time that
//! systemd would take. etcd and the leader have the same work as for that many agents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, MachineRecord, ReportBase, ReportChanges, UnitReport, UnitReports};
use fleet_core::unit::UnitName;
use fleetd::store::{Change, EtcdStore, Guard, LeaseId, Store as _, StoreError, Write};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::awaited::Roll;
use crate::bare::{AGAIN, TRIES};
use crate::fleet::{START, id};
use crate::hub;
use crate::workers::Workers;

/// The duration of a lease. It is never renewed, and nothing lasts as long.
const LEASE: Duration = Duration::from_secs(3600);

/// The number of simultaneous connects. A storm is measured elsewhere.
const AT_ONCE: usize = 100;

/// All of these machines.
pub(crate) struct Others {
    /// The rolls: each machine received a change, and reported it.
    rolls: Arc<Mutex<[Arc<Roll>; 2]>>,
    count: usize,
    /// The reason why one of them can no longer continue.
    cut: watch::Sender<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Others {
    /// Connects that many machines with numbers from there on, each with that many units.
    pub(crate) async fn connect(
        endpoint: &str,
        first: usize,
        count: usize,
        units: usize,
        workers: &Workers,
    ) -> Result<Self> {
        let mut others = Self {
            rolls: Arc::new(Mutex::new(rolls(count))),
            count,
            cut: watch::Sender::default(),
            tasks: Vec::new(),
        };
        let (tell, mut told) = mpsc::channel(AT_ONCE);
        for place in 0..count {
            let store = EtcdStore::new(hub::config(endpoint))?.for_agent();
            let me = id(first + place)?;
            let (rolls, tell, cut) = (others.rolls.clone(), tell.clone(), others.cut.clone());
            let task = async move {
                let why = match Other::enter(store, me, units).await {
                    Ok(mut other) => {
                        let _ = tell.send(()).await;
                        drop(tell);
                        other.answer(place, &rolls).await
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = why {
                    cut.send_replace(Some(format!("{error:#}")));
                }
            };
            others.tasks.push(workers.of(place).spawn(task));
            if place % AT_ONCE == AT_ONCE - 1 || place == count - 1 {
                for _ in 0..=place % AT_ONCE {
                    others.unless_cut(told.recv()).await?.context("all ended")?;
                }
            }
        }
        Ok(others)
    }

    /// Starts to await that all of them receive the next change, and report it.
    pub(crate) fn lay_out(&self) -> [Arc<Roll>; 2] {
        let rolls = rolls(self.count);
        *self.rolls.lock().unwrap_or_else(PoisonError::into_inner) = rolls.clone();
        rolls
    }

    /// Waits for one of the two rolls. Returns the time of its last machine.
    pub(crate) async fn all(&self, roll: &Roll, what: &str) -> Result<Instant> {
        self.unless_cut(roll.all(what)).await?
    }

    async fn unless_cut<T>(&self, awaited: impl Future<Output = T>) -> Result<T> {
        let mut cut = self.cut.subscribe();
        tokio::select! {
            done = awaited => Ok(done),
            Ok(why) = cut.wait_for(Option::is_some) => {
                bail!("a machine among the agents was cut off: {}", why.as_deref().unwrap_or_default())
            }
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn rolls(count: usize) -> [Arc<Roll>; 2] {
    [Roll::of_all(count), Roll::of_all(count)].map(Arc::new)
}

/// One of these machines.
struct Other {
    store: EtcdStore,
    me: MachineId,
    lease: LeaseId,
    /// The revision that wrote the base of its report.
    base_at: u64,
    /// The revision that wrote its report last.
    at: u64,
}

impl Other {
    async fn enter(store: EtcdStore, me: MachineId, units: usize) -> Result<Self> {
        let lease = store.create_lease(LEASE).await?;
        let presence = MachineRecord {
            session: lease.0,
            primary_ip: String::new(),
            metadata: BTreeMap::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let names = (0..units).map(|number| UnitName::parse(&format!("base-{number:03}.service")));
        let units = names.map(|name| Ok((name?, report())));
        let base = ReportBase {
            number: 1,
            units: units.collect::<Result<UnitReports>>()?,
        };
        let changes = over_base(BTreeMap::new());
        let put = |key, value| Write::Put {
            key,
            value,
            lease: Some(lease),
        };
        let writes = vec![
            put(keys::machine(&me), record::encode(&presence)),
            put(keys::report(&me), record::encode(&changes)),
            put(keys::report_base(&me), record::encode(&base)),
        ];
        let at = store.commit(Vec::new(), writes).await?;
        Ok(Self {
            store,
            me,
            lease,
            base_at: at,
            at,
        })
    }

    /// Responds to every change of a unit with a report, until its line is cut.
    async fn answer(&mut self, place: usize, rolls: &Mutex<[Arc<Roll>; 2]>) -> Result<()> {
        let me = &self.me;
        let prefixes = [
            keys::CLUSTER,
            keys::ACCEPTANCE,
            keys::UNITS,
            &keys::metadata(me),
            &keys::grants_of(me),
            &keys::machine(me),
        ];
        let mut watch = self.store.watch(&prefixes, self.at).await?;
        loop {
            for change in watch.next().await?.changes {
                let Some(name) = keys::unit_of(change.key()) else {
                    continue;
                };
                let is_started = matches!(change, Change::Put(..));
                let rolls = rolls.lock().unwrap_or_else(PoisonError::into_inner).clone();
                rolls[0].tick(place);
                if is_started {
                    sleep(START).await;
                }
                let units = is_started.then(|| (name, report())).into_iter().collect();
                self.tell(&over_base(units)).await?;
                rolls[1].tick(place);
            }
        }
    }

    async fn tell(&mut self, changes: &ReportChanges) -> Result<()> {
        let (key, base) = (keys::report(&self.me), keys::report_base(&self.me));
        let mut tries = 0;
        loop {
            let guards = vec![
                Guard::Unmodified(key.clone(), self.at),
                Guard::Unmodified(base.clone(), self.base_at),
            ];
            let write = Write::Put {
                key: key.clone(),
                value: record::encode(changes),
                lease: Some(self.lease),
            };
            tries += 1;
            match self.store.commit(guards, vec![write]).await {
                Ok(at) => {
                    self.at = at;
                    return Ok(());
                }
                Err(StoreError::Unavailable(_)) if tries < TRIES => sleep(AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn over_base(units: BTreeMap<UnitName, UnitReport>) -> ReportChanges {
    ReportChanges {
        units,
        base: 1,
        ..ReportChanges::default()
    }
}

/// Returns an agent's report of a healthy service.
fn report() -> UnitReport {
    UnitReport {
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        sub: "running".to_owned(),
        revision: 1,
        hash: "0".repeat(40),
        since: 1_800_000_000_000,
        result: "success".to_owned(),
        launched: true,
        ready: true,
        available: true,
        ..UnitReport::default()
    }
}
