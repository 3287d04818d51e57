//! The fleet of a history: machines, engines and one units directory, each with its own way to the registry.

use std::path::PathBuf;
use std::sync::Arc;

use fleet_core::machine::MachineId;
use fleet_core::record::Owner;
use fleet_core::unit::{Content, UnitName};
use fleetd::daemon::publisher::{AsOwner, check};
use fleetd::engine::Engine;
use fleetd::health::Heart;
use fleetd::registry::Registry;
use fleetd::units_dir::UnitsDir;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::nature::Nature;
use super::referee::Referee;
use crate::fleet::{Fleet, in_memory};
use crate::weather::Weather;

/// When histories begin, in milliseconds since 1970.
const BEGIN: u64 = 1_700_000_000_000;

/// Who is killed goes on to the end of what it does, which is the next await.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An engine on a host of its own. Its clock is not quite that of the others.
pub(crate) struct Host {
    id: MachineId,
    pub(crate) weather: Weather,
    slow: u64,
    task: Option<Task>,
}

/// All of it.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) referee: Referee,
    pub(crate) nature: Nature,
    pub(crate) engines: Vec<Host>,
    /// What people's commands go through.
    pub(crate) api: Weather,
    pub(crate) directory: Option<Directory>,
    begin: Instant,
    _follower: Task,
}

/// A units directory, and the task that publishes it.
pub(crate) struct Directory {
    pub(crate) files: PathBuf,
    _folder: TempDir,
    _task: Task,
}

impl World {
    pub(crate) async fn of(seed: u64, machines: usize, engines: usize, directory: bool) -> Self {
        let begin = Instant::now();
        let mut fleet = Fleet::of(machines).await;
        let referee = Referee::of(&fleet).await;
        let nature = Nature::of(seed, machines);
        for (number, machine) in fleet.machines.iter().enumerate() {
            let nature = nature.clone();
            machine
                .systemd
                .behave_as(move |content| nature.on(number, content));
            machine.weather.skew(seed ^ (number as u64) << 20);
        }
        let api = Weather::over(fleet.store.clone());
        fleet.registry = registry(&api, begin);
        let follower = tokio::spawn(referee.clone().follow(fleet.store.clone()));
        let hosts = (0..engines).map(|number| Host {
            id: MachineId::parse(&format!("{:032x}", 0xe000 + number)).expect("32 digits"),
            weather: Weather::over(fleet.store.clone()),
            slow: 700 * number as u64,
            task: None,
        });
        let mut world = Self {
            engines: hosts.collect(),
            directory: directory.then(|| Directory::publish(&fleet, begin)),
            fleet,
            referee,
            nature,
            api,
            begin,
            _follower: Task(follower),
        };
        for number in 0..engines {
            world.engines[number]
                .weather
                .skew(seed ^ (number as u64) << 50);
            world.lead(number);
        }
        world
    }

    /// Starts an engine; the one that was there is killed wherever it is.
    pub(crate) fn lead(&mut self, number: usize) {
        let host = &mut self.engines[number];
        host.task = None;
        let store = Arc::new(host.weather.clone());
        let engine = Engine::new(store, host.id.clone(), Heart::default(), || "0".repeat(32));
        let (clock, slow) = (clock(self.begin), host.slow);
        let engine = engine.with_clock(move || clock() - slow);
        let (stop, stopping) = watch::channel(false);
        host.task = Some(Task(tokio::spawn(async move {
            engine.run(stopping).await;
            drop(stop);
        })));
    }

    pub(crate) fn end(&mut self, number: usize) {
        self.engines[number].task = None;
    }

    /// Every way to the registry there is.
    pub(crate) fn ways(&self) -> impl Iterator<Item = &Weather> {
        let machines = self.fleet.machines.iter().map(|machine| &machine.weather);
        let engines = self.engines.iter().map(|host| &host.weather);
        machines.chain(engines).chain(std::iter::once(&self.api))
    }
}

impl Directory {
    /// On the first machine.
    fn publish(fleet: &Fleet, begin: Instant) -> Self {
        let folder = in_memory().expect("a folder");
        let (files, state) = (folder.path().join("units"), folder.path().join("state"));
        for path in [&files, &state] {
            std::fs::create_dir(path).expect("made");
        }
        let machine = &fleet.machines[0];
        let publisher = Arc::new(AsOwner {
            registry: registry(&machine.weather, begin),
            owner: Owner::Directory(machine.id.clone()),
        });
        let (problems, _) = watch::channel(std::collections::BTreeMap::new());
        let directory = UnitsDir::new(&files, &state, publisher, check, problems);
        let task = tokio::spawn(async move { match directory.run().await {} });
        Self {
            files,
            _folder: folder,
            _task: Task(task),
        }
    }

    pub(crate) fn put(&self, name: &UnitName, content: &Content) {
        let new = self.files.join(".new");
        std::fs::write(&new, content.as_bytes()).expect("written");
        std::fs::rename(new, self.files.join(name.as_str())).expect("renamed");
    }

    pub(crate) fn remove(&self, name: &UnitName) {
        let _ = std::fs::remove_file(self.files.join(name.as_str()));
    }
}

fn registry(weather: &Weather, begin: Instant) -> Registry {
    Registry::new(Arc::new(weather.clone())).with_clock(clock(begin))
}

/// The wall clock.
fn clock(begin: Instant) -> impl Fn() -> u64 + Send + Sync + 'static {
    move || BEGIN + u64::try_from(begin.elapsed().as_millis()).expect("small")
}
