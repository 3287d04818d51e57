//! Random histories of what users do and what breaks: once it is quiet every machine runs exactly
//! what `place` says, and on the way nothing was stopped that should have run all the time.
//!
//! `FLEET_SEED=7` replays one history.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::unit::{TargetState, UnitName};
use fleetd::store::Embedded;
use tokio::time::sleep;

use super::fleet::{Fleet, cluster, quiet, service};
use super::weather::Sky;
use lab::Chance;

const MACHINES: usize = 3;
const STEPS: usize = 25;

struct History {
    seed: u64,
    chance: Chance,
    fleet: Fleet,
    /// What each machine should have run at some time, and at some later time not.
    unwanted: Vec<BTreeSet<UnitName>>,
    launched: Vec<BTreeSet<UnitName>>,
    reboots: Vec<usize>,
    steps: Vec<String>,
}

impl History {
    async fn new(seed: u64) -> Self {
        let fleet = Fleet::of(MACHINES).await;
        // Each machine belongs to its cluster before it sees another one.
        quiet().await;
        Self {
            seed,
            chance: Chance::of(seed),
            fleet,
            unwanted: vec![BTreeSet::new(); MACHINES],
            launched: vec![BTreeSet::new(); MACHINES],
            reboots: vec![0; MACHINES],
            steps: Vec::new(),
        }
    }

    async fn step(&mut self) {
        let name = ["a.service", "b.service", "c.service", "d.service"][self.chance.below(4)];
        let at = self.chance.below(MACHINES);
        let what = match self.chance.below(14) {
            0..=2 => {
                let options = [
                    "",
                    "Conflicts=a.service",
                    "MachineMetadata=n=1",
                    "MachineMetadata=gpu=yes",
                ];
                let options = options[self.chance.below(4)];
                let version = self.chance.below(3) as u32;
                self.fleet.launch(name, service(version, options)).await;
                format!("launch {name} {version} {options}")
            }
            3 => {
                let targets = [
                    TargetState::Inactive,
                    TargetState::Loaded,
                    TargetState::Launched,
                ];
                let target = targets[self.chance.below(3)];
                self.fleet.try_set_target(name, target).await;
                format!("{name} is to be {target}")
            }
            4 => {
                self.fleet.destroy(name).await;
                format!("destroy {name}")
            }
            5 => {
                let value = (self.chance.below(2) == 0).then(|| "yes".to_owned());
                let id = self.fleet.machines[at].id.clone();
                let change = [(id, "gpu".to_owned(), value)];
                self.fleet
                    .registry
                    .set_metadata(&change)
                    .await
                    .expect("set");
                format!("gpu on {at}")
            }
            6 | 7 => {
                let sky = [Sky::Away, Sky::Silent, Sky::Slow, Sky::Clear][self.chance.below(4)];
                self.fleet.machines[at].weather.turn(sky);
                format!("{at} has the registry {sky:?}")
            }
            8 => {
                let other = match self.chance.below(2) {
                    0 => Embedded::in_memory(),
                    _ => cluster("another").await,
                };
                self.fleet.machines[at].weather.swap(&other);
                format!("{at} sees another registry")
            }
            9 => {
                self.fleet.machines[at].weather.swap(&self.fleet.store);
                format!("{at} sees its registry")
            }
            10 | 11 => {
                self.fleet.machines[at].kill().await;
                self.fleet.machines[at].start();
                format!("{at} has a new agent")
            }
            12 => {
                self.fleet.machines[at].reboot().await;
                self.reboots[at] += 1;
                format!("{at} reboots")
            }
            _ => {
                let available = self.chance.below(2) == 0;
                self.fleet.machines[at].systemd.set_available(available);
                format!("{at} has a bus: {available}")
            }
        };
        self.steps.push(what);
        self.note_wanted().await;
        let wait = [0, 1, 30, 200, 3000][self.chance.below(5)];
        sleep(Duration::from_millis(wait)).await;
    }

    async fn note_wanted(&mut self) {
        for (at, machine) in self.fleet.machines.iter().enumerate() {
            let wanted = self.fleet.wanted(machine).await;
            let now: BTreeSet<UnitName> = wanted
                .into_iter()
                .filter(|(_, target)| *target == TargetState::Launched)
                .map(|(name, _)| name)
                .collect();
            let gone = self.launched[at].difference(&now).cloned();
            self.unwanted[at].extend(gone);
            self.launched[at].extend(now);
        }
    }

    async fn end(&mut self) {
        for machine in &self.fleet.machines {
            machine.weather.turn(Sky::Clear);
            machine.weather.swap(&self.fleet.store);
            machine.systemd.set_available(true);
        }
        quiet().await;
        // No leader is here. What leaves makes room for another unit, which may drive out a third.
        for _ in 0..3 {
            self.fleet.let_leave().await;
            quiet().await;
        }
        let logs = self.fleet.take_logs();
        for (at, log) in logs.iter().enumerate() {
            for name in self.launched[at].difference(&self.unwanted[at]) {
                let count = |verb: &str| {
                    log.iter()
                        .filter(|line| **line == format!("{verb} {name}"))
                        .count()
                };
                let story = format!(
                    "seed {}: {name} on {at}: {log:#?} after {:#?}",
                    self.seed, self.steps
                );
                assert_eq!(count("stop") + count("remove"), 0, "{story}");
                assert!(count("start") <= 1 + self.reboots[at], "{story}");
            }
        }
        // Shown where something fails.
        println!("{:#?}", self.steps);
        self.fleet.has_converged().await;
    }
}

#[test]
fn any_history_converges_and_stops_nothing_on_the_way() {
    let seeds = match std::env::var("FLEET_SEED") {
        Ok(seed) => vec![seed.parse().expect("FLEET_SEED is a number")],
        Err(_) => (0..50).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        println!("FLEET_SEED={seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut history = History::new(seed).await;
            for _ in 0..STEPS {
                history.step().await;
            }
            history.end().await;
        });
    }
}
