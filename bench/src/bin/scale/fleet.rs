//! The fleet: real agents, each on a systemd in memory and a connection of its own, and an
//! operator's changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata};
use fleet_core::record::{self, ClusterRecord, MachineRecord, Owner};
use fleet_core::unit::{Content, TargetState, UnitName};
use fleetd::agent::{Agent, Config};
use fleetd::health::Heart;
use fleetd::registry::Registry;
use fleetd::store::{EtcdStore, Store, Write};
use fleetd::systemd::fake::{Behaviour, Fake};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::awaited::{Change, Reported, Stage};
use crate::etcd::in_memory;
use crate::hub;
use crate::line::{Line, Lines, Tally};
use crate::workers::Workers;

/// systemd's time to start a small service, measured on real hosts.
pub(crate) const START: Duration = Duration::from_millis(10);
pub(crate) const STOP: Duration = Duration::from_millis(1);

/// The default of fleet.conf. For thousands, docs/howto/thousands-of-machines.md has another value.
const AGENT_TTL: Duration = Duration::from_secs(30);
const AGENT_TTL_OF_THOUSANDS: Duration = Duration::from_secs(60);

/// The time without writes after which all work is done. It is longer than any pause between two
/// reports of an agent.
const QUIET: Duration = Duration::from_millis(400);

/// The machines, and the registry that they share.
pub(crate) struct Fleet {
    pub(crate) count: usize,
    pub(crate) units: usize,
    /// The duration of a machine's lease.
    pub(crate) ttl: Duration,
    pub(crate) registry: Registry,
    pub(crate) stage: Stage,
    pub(crate) tally: Arc<Tally>,
    pub(crate) cut: watch::Sender<bool>,
    lines: Lines,
    systemds: Vec<Arc<Fake>>,
    tasks: Vec<JoinHandle<()>>,
    folder: TempDir,
}

impl Fleet {
    /// Prepares a registry with that many launched units, and no machine yet. `front` is the
    /// endpoint for the machines.
    pub(crate) async fn prepare(
        endpoint: &str,
        front: &str,
        count: usize,
        units: usize,
    ) -> Result<Self> {
        let store = Arc::new(EtcdStore::new(hub::config(endpoint))?.for_agent());
        let id = Write::Put {
            key: keys::CLUSTER.to_owned(),
            value: record::encode(&ClusterRecord { id: "0".repeat(32) }),
            lease: None,
        };
        store.commit(Vec::new(), vec![id]).await?;
        let (cut, is_cut) = watch::channel(false);
        let tally = Arc::new(Tally::default());
        let stage = Stage::default();
        let fleet = Self {
            count,
            units,
            ttl: match count {
                ..=1000 => AGENT_TTL,
                _ => AGENT_TTL_OF_THOUSANDS,
            },
            registry: Registry::new(store),
            lines: Lines {
                config: hub::config(front),
                tally: tally.clone(),
                stage: stage.clone(),
                cut: is_cut,
            },
            stage,
            tally,
            cut,
            systemds: Vec::new(),
            tasks: Vec::new(),
            folder: in_memory()?,
        };
        for number in 0..units {
            let name = format!("base-{number:03}.service");
            fleet
                .submit(&name, &file(1, ""), Some(TargetState::Launched))
                .await?;
        }
        Ok(fleet)
    }

    /// Starts every agent at once. Returns the time until all units are available on every machine.
    pub(crate) async fn join(&mut self, workers: &Workers) -> Result<Duration> {
        let reported = Reported::Units(self.units);
        let joined = Change::new("any.service", "nothing", reported, self.count, None);
        self.stage.set(Some(joined.clone()));
        let mut agents = Vec::new();
        for number in 0..self.count {
            let systemd = Arc::new(Fake::new());
            systemd.behave_as(|content| Behaviour {
                start: START,
                stop: STOP,
                ..Behaviour::of(content)
            });
            let stage = self.stage.clone();
            systemd.observe(move |name, happened| {
                if let Some(asked) = happened.asked {
                    stage.asked(number, name.as_str(), asked);
                }
            });
            let folder = self.folder.path().join(number.to_string());
            std::fs::create_dir(&folder)?;
            let line = Arc::new(Line::new(self.lines.clone(), number)?);
            let config = config(number, self.ttl, &folder)?;
            let agent = Agent::new(config, line, systemd.clone(), Heart::default());
            self.systemds.push(systemd);
            agents.push(agent);
        }
        let begin = Instant::now();
        for (number, agent) in agents.into_iter().enumerate() {
            let (_, directory) = watch::channel(BTreeMap::new());
            let task = workers.of(number).spawn(agent.run(directory));
            self.tasks.push(task);
        }
        let ended = joined.told.all("machines that join").await?;
        self.quiet().await;
        Ok(ended - begin)
    }

    /// Waits until nothing is written any more, and drops what the systemds have recorded.
    pub(crate) async fn quiet(&self) {
        loop {
            let before = self.tally.commits.load(Ordering::Relaxed);
            sleep(QUIET).await;
            if self.tally.commits.load(Ordering::Relaxed) == before {
                break;
            }
        }
        for systemd in &self.systemds {
            systemd.take_log();
        }
    }

    pub(crate) async fn submit(
        &self,
        name: &str,
        content: &str,
        target: Option<TargetState>,
    ) -> Result<()> {
        let name = UnitName::parse(name)?;
        let content = Content::from(content);
        let submitted = self.registry.submit(&name, content, Owner::Api, target);
        submitted.await?;
        Ok(())
    }

    pub(crate) async fn set_target(&self, name: &str, target: TargetState) -> Result<()> {
        let name = UnitName::parse(name)?;
        let is_there = self.registry.set_target(&name, target).await?;
        ensure!(is_there, "{name} is not there");
        Ok(())
    }

    pub(crate) async fn destroy(&self, name: &str) -> Result<()> {
        self.registry.destroy(&UnitName::parse(name)?).await?;
        Ok(())
    }

    /// Sets a metadata key of one machine, or removes it.
    pub(crate) async fn label(&self, number: usize, value: Option<&str>) -> Result<()> {
        let change = (id(number)?, "probe".to_owned(), value.map(str::to_owned));
        self.registry.set_metadata(&[change]).await?;
        Ok(())
    }

    pub(crate) fn errors(&self) -> u64 {
        self.tally.errors.load(Ordering::Relaxed)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn config(number: usize, ttl: Duration, folder: &Path) -> Result<Config> {
    let metadata = Metadata::from([
        ("host".to_owned(), format!("n{number}")),
        ("zone".to_owned(), format!("z{}", number % 3)),
    ]);
    Ok(Config {
        me: id(number)?,
        presence: watch::channel(MachineRecord {
            session: 0,
            primary_ip: format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
            metadata,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
        .1,
        ttl,
        desired_file: folder.join("desired.json"),
        marks_file: Some(folder.join("marks.json")),
    })
}

/// Returns the id of the machine of that number.
pub(crate) fn id(number: usize) -> Result<MachineId> {
    // Spread like real ids.
    let spread = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Ok(MachineId::parse(&format!("{spread:032x}"))?)
}

/// Returns a global service whose process depends on `version`.
pub(crate) fn file(version: u32, fleet: &str) -> String {
    format!(
        "[Unit]\nDescription=A service of the scale bench\n\n[Service]\nType=notify\nExecStart=/usr/bin/web --version {version}\nRestart=always\n\n[X-Fleet]\nGlobal=true\n{fleet}"
    )
}
