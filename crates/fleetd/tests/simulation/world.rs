//! The fleet of a history: hosts with all that fleetd is made of, and the registries that they may
//! see.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use fleet_core::machine::MachineId;
use fleetd::engine::Engine;
use fleetd::health::Heart;
use fleetd::registry::Registry;
use fleetd::registry::{AsOwner, check};
use fleetd::store::{Backup, Embedded};
use fleetd::units_dir::{Memory, UnitsDir};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::nature::Nature;
use super::referee::Referee;
use super::step::{Among, Of};
use crate::fleet::{Fleet, unless};
use crate::weather::Weather;

/// When histories begin, in milliseconds since 1970.
const BEGIN: u64 = 1_700_000_000_000;

/// How far apart the leases of two copies of a registry are.
const LEASES: i64 = 1_000_000;

/// Who is killed goes on to the end of what it does, which is the next await.
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is on a host beside its agent.
pub(crate) struct Beside {
    pub(crate) way: Weather,
    /// While it says so the engine stands still.
    pub(crate) frozen: watch::Sender<bool>,
    /// By how many milliseconds the wall clock is wrong.
    pub(crate) off: Arc<AtomicI64>,
    rest: Option<Task>,
    /// What people have ordered there and not been answered yet.
    pub(super) orders: Vec<Task>,
}

/// All of it.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) beside: Vec<Beside>,
    pub(crate) referee: Referee,
    pub(crate) nature: Nature,
    /// Every registry that there was, by the number that the referee knows it by.
    pub(crate) stores: Vec<Embedded>,
    /// The fleet's own.
    pub(crate) home: usize,
    /// Copies of a registry, and its number.
    pub(crate) backups: Vec<(Backup, usize)>,
    /// The units directory of the first machine.
    pub(crate) directory: Memory,
    ids: Arc<AtomicU64>,
    begin: Instant,
    followers: Vec<Task>,
}

impl World {
    pub(crate) async fn of(of: &Of, log: bool) -> Self {
        let begin = Instant::now();
        let mut fleet = Fleet::of(of.machines).await;
        let store = fleet.store.clone();
        let referee = Referee::of(&fleet, log).await;
        let nature = Nature::of(of.seed, of.machines);
        let mut beside = Vec::new();
        for (number, machine) in fleet.machines.iter_mut().enumerate() {
            let (nature, seed) = (nature.clone(), of.seed);
            machine
                .systemd
                .behave_as(move |content| nature.on(number, content));
            machine.weather.skew(seed ^ (number as u64) << 20);
            let way = Weather::over(store.clone());
            way.skew(seed ^ (number as u64) << 50);
            let (court, me) = (referee.clone(), machine.id.clone());
            way.tell(move |landed| court.engine_wrote(&me, landed));
            // Hosts' clocks are not quite the same.
            let off = Arc::new(AtomicI64::new(-700 * number as i64));
            beside.push(Beside {
                way,
                frozen: watch::Sender::new(false),
                off,
                rest: None,
                orders: Vec::new(),
            });
        }
        let mut world = Self {
            fleet,
            beside,
            referee,
            nature,
            stores: Vec::new(),
            home: 0,
            backups: Vec::new(),
            directory: Memory::default(),
            ids: Arc::default(),
            begin,
            followers: Vec::new(),
        };
        world.open(store, None).await;
        for at in 0..of.machines {
            world.lead(at);
        }
        world
    }

    /// Takes another registry in; answers its number.
    pub(crate) async fn open(&mut self, store: Embedded, like: Option<usize>) -> usize {
        let number = self.referee.open(&store, like).await;
        let follower = self.referee.clone().follow(store.clone());
        self.followers.push(Task(tokio::spawn(follower)));
        self.stores.push(store);
        number
    }

    /// A new registry from a copy; answers its number.
    pub(crate) async fn restore(&mut self, copy: usize) -> usize {
        let (backup, like) = &self.backups[copy];
        let (store, like) = (backup.restore(self.stores.len() as i64 * LEASES), *like);
        self.open(store, Some(like)).await
    }

    /// The machines that a number names.
    pub(crate) fn among(&self, of: Among) -> Vec<usize> {
        let count = self.fleet.machines.len();
        (0..count).filter(|at| of >> (at % 32) & 1 == 1).collect()
    }

    /// From now on that host's registry is that one.
    pub(crate) fn show(&self, at: usize, number: usize) {
        let store = &self.stores[number];
        for way in self.ways(at) {
            if way.shows() != number {
                way.show(store, number);
            }
        }
    }

    /// The ways of a host to its registry.
    pub(crate) fn ways(&self, at: usize) -> [&Weather; 2] {
        [&self.fleet.machines[at].weather, &self.beside[at].way]
    }

    /// Starts fleetd.
    pub(crate) fn start(&mut self, at: usize) {
        self.fleet.machines[at].start();
        self.lead(at);
    }

    /// Ends all of fleetd wherever it is, as a kill does.
    pub(crate) async fn end(&mut self, at: usize) {
        let machine = &mut self.fleet.machines[at];
        machine.kill().await;
        machine.hands.release();
        machine.frozen.send_replace(false);
        let beside = &mut self.beside[at];
        beside.rest = None;
        beside.orders.clear();
        beside.frozen.send_replace(false);
    }

    /// Starts what is beside the agent.
    fn lead(&mut self, at: usize) {
        let machine = &self.fleet.machines[at];
        let beside = &self.beside[at];
        let store = Arc::new(beside.way.clone());
        let ids = self.ids.clone();
        let new_id = move || format!("{:032x}", 0xc000 + ids.fetch_add(1, Ordering::Relaxed));
        let engine = Engine::new(store, machine.id.clone(), Heart::default(), new_id);
        let engine = engine.with_clock(self.clock(at)).trusting(machine.trust());
        let directory = (at == 0).then(|| self.publish());
        let frozen = beside.frozen.subscribe();
        // In one task, as in the daemon: `watch` draws lots for which of several it wakes first,
        // and histories replay.
        let rest = Task(tokio::spawn(async move {
            let (_stop, stopping) = watch::channel(false);
            let directory = async {
                match directory {
                    Some(directory) => match directory.run().await {},
                    None => std::future::pending().await,
                }
            };
            let (): () = tokio::select! {
                biased;
                () = unless(frozen, engine.run(stopping)) => {}
                () = directory => {}
            };
        }));
        self.beside[at].rest = Some(rest);
    }

    fn publish(&self) -> UnitsDir {
        let machine = &self.fleet.machines[0];
        let publisher = Arc::new(AsOwner {
            registry: self.registry(0),
            machine: machine.id.clone(),
        });
        let (problems, _) = watch::channel(std::collections::BTreeMap::new());
        let place = std::path::Path::new("/etc/fleet/units");
        UnitsDir::new(
            place,
            machine.folder(),
            &machine.id,
            publisher,
            check,
            problems,
        )
        .showing(&self.directory)
    }

    /// The registry, as the API of that host changes it.
    pub(crate) fn registry(&self, at: usize) -> Registry {
        let machine = &self.fleet.machines[at];
        Registry::new(Arc::new(machine.weather.clone()))
            .with_clock(self.clock(at))
            .trusting(machine.trust())
    }

    /// The id that an API would give a registry which has none.
    pub(crate) fn new_id(&self) -> String {
        format!("{:032x}", 0xa000 + self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// The wall clock of a host.
    fn clock(&self, at: usize) -> impl Fn() -> u64 + Send + Sync + 'static {
        let (begin, off) = (self.begin, self.beside[at].off.clone());
        move || {
            let passed = u64::try_from(begin.elapsed().as_millis()).expect("small");
            (BEGIN + passed).saturating_add_signed(off.load(Ordering::Relaxed))
        }
    }

    pub(crate) fn id(&self, at: usize) -> MachineId {
        self.fleet.machines[at].id.clone()
    }
}
