//! Machines with an agent each, one registry, and what both say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata, SessionId, overlay};
use fleet_core::place::{Placeable, Verdict, place};
use fleet_core::record::{
    self, ClusterRecord, Grant, MachineRecord, MachineReport, MetadataRecord, Owner, UnitRecord,
    UnitReport,
};
use fleet_core::trust::Trust;
use fleet_core::unit::{Content, Parsed, TargetState, UnitName};
use fleetd::agent::{Agent, AgentStatus, Config, Goodbye};
use fleetd::health::Heart;
use fleetd::registry::Registry;
use fleetd::store::{Embedded, Entry, Store as _, Write};
use fleetd::systemd::Systemd as _;
use fleetd::systemd::fake::Fake;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::hands::Hands;
use super::weather::Weather;

pub(crate) const AGENT_TTL: Duration = Duration::from_secs(30);

/// Long enough for whatever is to happen to have happened: every wait of the daemon's is shorter.
pub(crate) async fn quiet() {
    sleep(Duration::from_secs(70)).await;
}

pub(crate) fn unit(name: &str) -> UnitName {
    UnitName::parse(name).expect("a unit's name")
}

/// A global service whose process depends on `version`.
pub(crate) fn service(version: u32, fleet: &str) -> Content {
    let text =
        format!("[Service]\nExecStart=/bin/web {version}\n[X-Fleet]\nGlobal=true\n{fleet}\n");
    Content::from(text.as_str())
}

/// One machine.
pub(crate) struct Machine {
    pub(crate) id: MachineId,
    pub(crate) metadata: Metadata,
    pub(crate) systemd: Arc<Fake>,
    pub(crate) hands: Arc<Hands>,
    pub(crate) weather: Weather,
    pub(crate) heart: Heart,
    folder: TempDir,
    trust: watch::Receiver<Trust>,
    standing: watch::Receiver<AgentStatus>,
    goodbye: Goodbye,
    agent: Option<JoinHandle<()>>,
    /// While it says so the agent stands still, as a stopped process does.
    pub(crate) frozen: watch::Sender<bool>,
}

impl Machine {
    fn new(number: usize, store: &Embedded) -> Self {
        let systemd = Arc::new(Fake::new());
        Self {
            id: MachineId::parse(&format!("{:032x}", number + 1)).expect("32 digits"),
            metadata: Metadata::from([("n".to_owned(), number.to_string())]),
            hands: Arc::new(Hands::on(systemd.clone())),
            systemd,
            weather: Weather::over(store.clone()),
            heart: Heart::default(),
            folder: in_memory().expect("a folder"),
            trust: watch::channel(Trust::default()).1,
            standing: watch::channel(AgentStatus::default()).1,
            goodbye: Goodbye::default(),
            agent: None,
            frozen: watch::Sender::new(false),
        }
    }

    /// Where the agent keeps the desired state.
    pub(crate) fn desired_file(&self) -> PathBuf {
        self.folder.path().join("desired.json")
    }

    /// The units that it names.
    pub(crate) fn on_disk(&self) -> BTreeSet<UnitName> {
        let text = std::fs::read(self.desired_file()).unwrap_or_default();
        let saved: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let units = saved["desired"].as_object().into_iter().flatten();
        units.map(|(name, _)| unit(name)).collect()
    }

    /// Where it keeps what it has started.
    pub(crate) fn marks_file(&self) -> PathBuf {
        self.folder.path().join("marks.json")
    }

    /// What the agent that was started last tells of the registry.
    pub(crate) fn trust(&self) -> watch::Receiver<Trust> {
        self.trust.clone()
    }

    /// How the agent that was started last stands.
    pub(crate) fn standing(&self) -> watch::Receiver<AgentStatus> {
        self.standing.clone()
    }

    /// Has the agent that was started last say that its host is shutting down.
    pub(crate) async fn say_goodbye(&self) {
        self.goodbye.say().await;
    }

    /// Starts the agent, on the files that the one before left.
    pub(crate) fn start(&mut self) {
        let config = Config {
            me: self.id.clone(),
            presence: watch::channel(MachineRecord {
                session: 0,
                primary_ip: String::new(),
                metadata: self.metadata.clone(),
                version: String::new(),
            })
            .1,
            ttl: AGENT_TTL,
            desired_file: self.desired_file(),
            marks_file: Some(self.marks_file()),
        };
        let store = Arc::new(self.weather.clone());
        let agent = Agent::new(config, store, self.hands.clone(), self.heart.clone());
        let (_, directory) = watch::channel(BTreeMap::new());
        self.trust = agent.trust();
        self.standing = agent.standing();
        self.goodbye = agent.goodbye();
        let frozen = self.frozen.subscribe();
        self.agent = Some(tokio::spawn(unless(frozen, agent.run(directory))));
    }

    /// Whether an agent runs.
    pub(crate) fn is_on(&self) -> bool {
        self.agent.is_some()
    }

    /// Where whatever else belongs to the machine is kept.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Ends the agent wherever it is, as a kill does.
    pub(crate) async fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.abort();
            let _ = agent.await;
        }
    }

    /// Restarts the machine: /run is empty, and the agent is started again.
    pub(crate) async fn reboot(&mut self) {
        self.kill().await;
        self.systemd.reboot();
        let _ = std::fs::remove_file(self.marks_file());
        self.start();
    }

    /// Restarts all but the kernel: /run stays, and the agent is started again.
    pub(crate) async fn soft_reboot(&mut self) {
        self.kill().await;
        self.systemd.soft_reboot();
        self.start();
    }

    /// What runs there, as its systemd says.
    pub(crate) async fn running(&self) -> BTreeSet<String> {
        let names: BTreeSet<UnitName> = self.systemd.links().into_keys().collect();
        let states = self.systemd.states(&names).await.expect("it is there");
        let up = states.into_iter().filter(|(_, state)| state.is_up());
        up.map(|(name, _)| name.to_string()).collect()
    }

    /// What was asked of its systemd that changes anything.
    pub(crate) fn take_log(&self) -> Vec<String> {
        self.systemd.take_log()
    }
}

/// Does that except while it is frozen.
pub(crate) async fn unless<T>(
    mut frozen: watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        // Nobody can freeze it any more where that fails.
        let _ = frozen.wait_for(|frozen| !*frozen).await;
        tokio::select! {
            biased;
            Ok(_) = frozen.wait_for(|frozen| *frozen) => {}
            done = &mut work => return done,
        }
    }
}

/// The machines, and their registry.
pub(crate) struct Fleet {
    pub(crate) store: Embedded,
    pub(crate) registry: Registry,
    pub(crate) machines: Vec<Machine>,
}

impl Fleet {
    /// A fleet of that many machines whose agents run.
    pub(crate) async fn of(count: usize) -> Self {
        Self::of_store(&cluster("one").await, count)
    }

    /// The same in that store.
    pub(crate) fn of_store(store: &Embedded, count: usize) -> Self {
        let mut machines: Vec<Machine> = (0..count).map(|n| Machine::new(n, store)).collect();
        for machine in &mut machines {
            machine.start();
        }
        Self {
            registry: Registry::new(Arc::new(store.clone())),
            store: store.clone(),
            machines,
        }
    }

    /// One machine more, with the id of the first; its agent runs.
    pub(crate) fn clone_machine(&mut self) {
        let mut clone = Machine::new(0, &self.store);
        clone.start();
        self.machines.push(clone);
    }

    pub(crate) async fn launch(&self, name: &str, content: Content) {
        self.submit(name, content, Some(TargetState::Launched))
            .await;
    }

    pub(crate) async fn submit(&self, name: &str, content: Content, target: Option<TargetState>) {
        let name = unit(name);
        let submitted = self.registry.submit(&name, content, Owner::Api, target);
        submitted.await.expect("submitted");
    }

    pub(crate) async fn set_target(&self, name: &str, target: TargetState) {
        assert!(self.try_set_target(name, target).await, "{name} exists");
    }

    /// Answers whether the unit exists.
    pub(crate) async fn try_set_target(&self, name: &str, target: TargetState) -> bool {
        let set = self.registry.set_target(&unit(name), target).await;
        set.expect("set")
    }

    pub(crate) async fn destroy(&self, name: &str) {
        self.registry.destroy(&unit(name)).await.expect("destroyed");
    }

    /// Writes a value that is none of fleet's.
    pub(crate) async fn damage(&self, key: String) {
        self.put(key, b"{\"format\":1,".to_vec()).await;
    }

    pub(crate) async fn put(&self, key: String, value: Vec<u8>) {
        let write = Write::Put {
            key,
            value,
            lease: None,
        };
        let written = self.store.commit(Vec::new(), vec![write]).await;
        written.expect("written");
    }

    /// A unit's record, and the store revision that made it.
    pub(crate) async fn record(&self, name: &str) -> (UnitRecord, u64) {
        let entry = self.entry(&keys::unit(&unit(name))).await;
        let entry = entry.expect("the unit exists");
        let record = record::decode(&entry.value).expect("a record");
        (record, entry.created)
    }

    /// The present session of a machine, as the registry has it.
    pub(crate) async fn session(&self, machine: &Machine) -> SessionId {
        let entry = self.entry(&keys::machine(&machine.id)).await;
        let entry = entry.expect("the machine is here");
        let record: MachineRecord = record::decode(&entry.value).expect("a machine");
        record.session
    }

    /// Lets a machine run that revision, as a leader would.
    pub(crate) async fn grant(&self, machine: &Machine, name: &str, revision: u64) {
        self.permit(machine, name, revision, false).await;
    }

    async fn permit(&self, machine: &Machine, name: &str, revision: u64, leaves: bool) {
        let grant = Grant {
            unit: self.record(name).await.1,
            revision,
            session: self.session(machine).await,
            was_available: true,
            proved: false,
            leaves,
        };
        let key = keys::grant(&machine.id, &unit(name));
        self.put(key, record::encode(&grant)).await;
    }

    /// Lets every machine run the newest revision of every unit.
    pub(crate) async fn let_all_go(&self) {
        let snapshot = self.store.list(&[keys::UNITS]).await.expect("lists");
        for name in snapshot.entries.keys().filter_map(|key| keys::unit_of(key)) {
            let (record, _) = self.record(name.as_str()).await;
            for machine in &self.machines {
                let newest = record.newest().number;
                self.grant(machine, name.as_str(), newest).await;
            }
        }
    }

    /// Lets every machine stop what does not belong there any more, as a leader would in turn.
    pub(crate) async fn let_leave(&self) {
        for machine in &self.machines {
            let Some(report) = self.report(machine).await else {
                continue;
            };
            let leaving = report.units.iter().filter(|(_, unit)| unit.leaving);
            for (name, _) in leaving {
                let (record, _) = self.record(name.as_str()).await;
                let stable = record.stable.number;
                self.permit(machine, name.as_str(), stable, true).await;
            }
        }
    }

    pub(crate) async fn entry(&self, key: &str) -> Option<Entry> {
        let snapshot = self.store.list(&[key]).await.expect("lists");
        snapshot.entries.get(key).cloned()
    }

    pub(crate) async fn report(&self, machine: &Machine) -> Option<MachineReport> {
        let changes = self.entry(&keys::report(&machine.id)).await?;
        let base = self.entry(&keys::report_base(&machine.id)).await;
        let base = base.as_ref().map(|base| &*base.value);
        Some(record::decode_report(&changes.value, base).expect("a report"))
    }

    /// What a machine says of a unit.
    pub(crate) async fn unit_report(&self, machine: &Machine, name: &str) -> UnitReport {
        let report = self.report(machine).await.expect("a report");
        let unit = report.units.get(&unit(name)).cloned();
        unit.unwrap_or_else(|| panic!("{name} in {report:?}"))
    }

    /// What runs on each machine.
    pub(crate) async fn running(&self) -> Vec<BTreeSet<String>> {
        let mut running = Vec::new();
        for machine in &self.machines {
            running.push(machine.running().await);
        }
        running
    }

    /// Every log, emptied.
    pub(crate) fn take_logs(&self) -> Vec<Vec<String>> {
        self.machines.iter().map(Machine::take_log).collect()
    }

    /// What `place` wants on that machine, from the records as they are: what is launched, and what
    /// is loaded.
    pub(crate) async fn wanted(&self, machine: &Machine) -> BTreeMap<UnitName, TargetState> {
        let metadata = self.entry(&keys::metadata(&machine.id)).await;
        let set = metadata.map(|entry| {
            record::decode::<MetadataRecord>(&entry.value)
                .expect("metadata")
                .set
        });
        let metadata = overlay(&machine.metadata, &set.unwrap_or_default());
        let snapshot = self.store.list(&[keys::UNITS]).await.expect("lists");
        let units: Vec<(UnitName, UnitRecord, u64, Parsed)> = snapshot
            .entries
            .iter()
            .filter_map(|(key, entry)| {
                let name = keys::unit_of(key)?;
                let record: UnitRecord = record::decode(&entry.value).ok()?;
                let parsed = Parsed::parse(name.clone(), &record.stable.content);
                Some((name, record, entry.created, parsed))
            })
            .collect();
        let placeables = units
            .iter()
            .map(|(name, record, created, parsed)| Placeable {
                name,
                created: *created,
                target: record.target,
                options: &parsed.options,
            });
        let verdicts = place(placeables, &metadata);
        units
            .iter()
            .filter(|(name, ..)| verdicts[name] == Verdict::Run)
            .map(|(name, record, ..)| (name.clone(), record.target))
            .collect()
    }

    /// Every machine has exactly what it should have, and an agent that starts again finds nothing
    /// to do.
    pub(crate) async fn has_converged(&mut self) {
        for machine in &self.machines {
            let wanted = self.wanted(machine).await;
            let links: BTreeSet<UnitName> = machine.systemd.links().into_keys().collect();
            assert_eq!(
                links,
                wanted.keys().cloned().collect(),
                "in place on {}, which says {:?}",
                machine.id,
                self.report(machine).await
            );
            let launched = wanted
                .iter()
                .filter(|(_, target)| **target == TargetState::Launched)
                .map(|(name, _)| name.to_string());
            assert_eq!(
                machine.running().await,
                launched.collect(),
                "running on {}",
                machine.id
            );
        }
        self.take_logs();
        for machine in &mut self.machines {
            machine.kill().await;
            machine.start();
        }
        quiet().await;
        for (log, machine) in self.take_logs().iter().zip(&self.machines) {
            assert!(log.is_empty(), "a second pass on {}: {log:?}", machine.id);
        }
    }
}

/// A store that holds nothing but that cluster id.
pub(crate) async fn cluster(id: &str) -> Embedded {
    let store = Embedded::in_memory();
    let write = Write::Put {
        key: keys::CLUSTER.to_owned(),
        value: record::encode(&ClusterRecord { id: id.to_owned() }),
        lease: None,
    };
    store
        .commit(Vec::new(), vec![write])
        .await
        .expect("written");
    store
}

/// A folder whose files need no disk: the agents sync each of them.
pub(crate) fn in_memory() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// A set of these names.
pub(crate) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
