//! One history: what people do and what breaks, drawn from a seed, and what must be so once it is quiet.

use std::time::Duration;

use fleet_core::record::{Owner, Phase, Scheduling, TargetState};
use fleet_core::rollout::Order;
use fleetd::store::{Snapshot, Store as _};
use tokio::time::sleep;

use super::nature::file;
use super::world::World;
use crate::chance::Chance;
use crate::fleet::{quiet, unit};
use crate::weather::Sky;

/// The units, and where each belongs.
const UNITS: [(&str, &str); 3] = [
    ("a.service", ""),
    ("b.service", ""),
    ("c.service", "MachineMetadata=gpu=yes\n"),
];

/// Where files of a units directory are for.
const FROM_DIRECTORY: &str = "d.service";

/// How often it is looked whether it is quiet yet, and how long it takes each time.
const ROUNDS: usize = 400;
const ROUND: Duration = Duration::from_secs(30);

/// A history, and all that happened in it.
pub(crate) struct History {
    pub(crate) world: World,
    pub(crate) steps: Vec<String>,
    chance: Chance,
    version: u32,
    begin: tokio::time::Instant,
}

/// A fleet that a seed draws.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) machines: usize,
    pub(crate) engines: usize,
    pub(crate) steps: usize,
    pub(crate) directory: bool,
}

impl Size {
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed ^ 0x517e);
        Self {
            machines: 5 + chance.below(6),
            engines: 1 + chance.below(3),
            steps: 10 + chance.below(16),
            directory: chance.one_in(4),
        }
    }
}

impl Size {
    /// The same with hundreds of machines, and less that happens.
    pub(crate) fn large(seed: u64) -> Self {
        let mut chance = Chance::of(seed ^ 0x1a96e);
        Self {
            machines: 100 + chance.below(201),
            steps: 5 + chance.below(6),
            ..Self::of(seed)
        }
    }
}

impl History {
    pub(crate) async fn of(seed: u64, size: &Size) -> Self {
        let world = World::of(seed, size.machines, size.engines, size.directory).await;
        let mut history = Self {
            world,
            steps: Vec::new(),
            chance: Chance::of(seed),
            version: 0,
            begin: tokio::time::Instant::now(),
        };
        sleep(Duration::from_secs(5)).await;
        for (name, _) in UNITS.iter().take(1 + history.chance.below(3)) {
            history.submit(name).await;
        }
        sleep(Duration::from_secs(20)).await;
        history
    }

    /// Plays it; answers what was broken.
    pub(crate) async fn play(&mut self, size: &Size) -> Result<(), String> {
        for _ in 0..size.steps {
            self.step().await;
            let wait = self
                .chance
                .pick(&[0, 7, 40, 300, 2000, 9000, 40_000, 90_000]);
            let wait = self.chance.below(wait + 1) as u64;
            sleep(Duration::from_millis(wait)).await;
            self.judged()?;
        }
        self.calm_down().await?;
        self.is_at_rest().await?;
        self.judged()
    }

    fn judged(&self) -> Result<(), String> {
        match &self.world.referee.broken()[..] {
            [] => Ok(()),
            broken => Err(broken.join("\n")),
        }
    }

    fn note(&mut self, what: String) {
        let at = self.begin.elapsed();
        self.steps
            .push(format!("{:9.3} s  {what}", at.as_secs_f64()));
    }

    fn some_unit(&mut self) -> (&'static str, &'static str) {
        UNITS[self.chance.pick(&[0, 0, 0, 1, 2])]
    }

    async fn step(&mut self) {
        let what = match self.chance.below(100) {
            0..=29 => {
                let (name, _) = self.some_unit();
                self.submit(name).await;
                return;
            }
            30..=42 => self.order().await,
            43..=48 => self.target().await,
            49..=50 => {
                let (name, _) = self.some_unit();
                let destroyed = self.world.fleet.registry.destroy(&unit(name)).await;
                let what = format!("destroy {name}: {destroyed:?}");
                if self.chance.one_in(2) {
                    self.note(what);
                    self.submit(name).await;
                    return;
                }
                what
            }
            51..=55 => self.label().await,
            56..=61 => self.schedule().await,
            62..=69 => self.agent().await,
            70..=79 => self.cut_off(),
            80..=87 => self.engine(),
            88..=92 => {
                let sky = self
                    .chance
                    .pick(&[Sky::Away, Sky::Silent, Sky::Clear, Sky::Clear]);
                self.world.ways().for_each(|way| way.turn(sky));
                format!("everybody has the registry {sky:?}")
            }
            93..=94 => {
                let store = self.world.fleet.store.clone();
                let lost = self.chance.one_in(2);
                for way in self.world.ways() {
                    if lost {
                        way.swap(&store)
                    } else {
                        way.compact()
                    }
                }
                format!("every watch is {}", if lost { "lost" } else { "compacted" })
            }
            95..=96 => {
                let at = self.chance.below(self.world.fleet.machines.len());
                let (name, _) = self.some_unit();
                self.world.fleet.machines[at].systemd.crash(&unit(name));
                format!("{name} crashes on {}", at + 1)
            }
            _ => self.drop_a_file(),
        };
        self.note(what);
    }

    fn content(&mut self, placed: &str) -> fleet_core::unit::Content {
        self.version += 1;
        file(self.version, placed, &mut self.chance)
    }

    async fn submit(&mut self, name: &'static str) {
        let placed = UNITS
            .iter()
            .find(|(it, _)| *it == name)
            .map_or("", |it| it.1);
        let content = self.content(placed);
        let registry = self.world.fleet.registry.clone();
        let launched = Some(TargetState::Launched);
        let name = &unit(name);
        let submitted = registry.submit(name, content.clone(), Owner::Api, launched);
        let done = match submitted.await {
            Ok(_) => String::new(),
            Err(error) => format!(": {error}"),
        };
        let options = content.to_text().replace('\n', " ");
        self.note(format!("submit {name} {} {options}{done}", self.version));
    }

    async fn order(&mut self) -> String {
        let (name, _) = self.some_unit();
        let any = 1 + self.chance.below(self.version.max(1) as usize) as u64;
        let order = self.chance.pick(&[
            Order::Pause,
            Order::Resume,
            Order::Undo(None),
            Order::Undo(Some(any)),
            Order::Restart,
        ]);
        let followed = self
            .world
            .fleet
            .registry
            .order(&unit(name), order, "somebody")
            .await;
        let said = match followed {
            Ok(record) => format!("{}", record.is_some()),
            Err(error) => error.to_string(),
        };
        format!("{order:?} {name}: {said}")
    }

    async fn target(&mut self) -> String {
        let (name, _) = self.some_unit();
        let target = self.chance.pick(&[
            TargetState::Inactive,
            TargetState::Loaded,
            TargetState::Launched,
            TargetState::Launched,
        ]);
        let registry = &self.world.fleet.registry;
        if let Ok(Some(stored)) = registry.unit(&unit(name)).await {
            let _ = registry.set_target(&unit(name), stored, target).await;
        }
        format!("{name} is to be {target}")
    }

    async fn label(&mut self) -> String {
        let at = self.chance.below(self.world.fleet.machines.len());
        let value = self.chance.pick(&[Some("yes"), Some("yes"), None]);
        let id = self.world.fleet.machines[at].id.clone();
        let change = [(id, "gpu".to_owned(), value.map(str::to_owned))];
        let _ = self.world.fleet.registry.set_metadata(&change).await;
        format!("gpu on {}: {value:?}", at + 1)
    }

    async fn schedule(&mut self) -> String {
        let at = self.chance.below(self.world.fleet.machines.len());
        let how = self.chance.pick(&[
            Scheduling::Normal,
            Scheduling::Normal,
            Scheduling::Cordoned,
            Scheduling::Drained,
        ]);
        let id = self.world.fleet.machines[at].id.clone();
        let _ = self.world.fleet.registry.set_scheduling(&id, how).await;
        format!("{} is {}", at + 1, how.as_str())
    }

    async fn agent(&mut self) -> String {
        let at = self.chance.below(self.world.fleet.machines.len());
        let machine = &mut self.world.fleet.machines[at];
        match self.chance.below(4) {
            0 => {
                machine.reboot().await;
                format!("{} reboots", at + 1)
            }
            1 => {
                machine.kill().await;
                format!("the agent of {} is killed", at + 1)
            }
            _ => {
                machine.kill().await;
                machine.start();
                format!("{} has a new agent", at + 1)
            }
        }
    }

    fn cut_off(&mut self) -> String {
        let count = self.world.fleet.machines.len();
        let among = 1 + self.chance.below(count);
        let first = self.chance.below(count);
        let skies = [
            Sky::Away,
            Sky::Silent,
            Sky::Slow,
            Sky::Unanswered,
            Sky::Late,
            Sky::Clear,
            Sky::Clear,
        ];
        let sky = self.chance.pick(&skies);
        for at in (first..count).take(among) {
            self.world.fleet.machines[at].weather.turn(sky);
        }
        let last = count.min(first + among);
        format!("{} to {last} have the registry {sky:?}", first + 1)
    }

    fn engine(&mut self) -> String {
        let at = self.chance.below(self.world.engines.len());
        match self.chance.below(4) {
            0 => {
                self.world.end(at);
                format!("engine {at} is killed")
            }
            1 => {
                self.world.lead(at);
                format!("engine {at} is new")
            }
            _ => {
                let sky = self.chance.pick(&[
                    Sky::Away,
                    Sky::Silent,
                    Sky::Slow,
                    Sky::Unanswered,
                    Sky::Late,
                    Sky::Clear,
                    Sky::Clear,
                ]);
                self.world.engines[at].weather.turn(sky);
                format!("engine {at} has the registry {sky:?}")
            }
        }
    }

    fn drop_a_file(&mut self) -> String {
        let name = unit(FROM_DIRECTORY);
        let gone = self.chance.one_in(4);
        let content = self.content("");
        let Some(directory) = &self.world.directory else {
            return "nothing".to_owned();
        };
        if gone {
            directory.remove(&name);
            return format!("{name} goes from the units directory");
        }
        directory.put(&name, &content);
        format!("{name} {} lies in the units directory", self.version)
    }

    /// Everything is mended, and everybody reaches everybody; then nothing is left to do.
    async fn calm_down(&mut self) -> Result<(), String> {
        self.note("everything is mended".to_owned());
        self.world.ways().for_each(|way| way.turn(Sky::Clear));
        self.world.lead(0);
        for machine in &mut self.world.fleet.machines {
            machine.kill().await;
            machine.start();
            let id = machine.id.clone();
            let normal = Scheduling::Normal;
            let _ = self.world.fleet.registry.set_scheduling(&id, normal).await;
        }
        self.world.nature.mend();
        quiet().await;
        let stays_paused = self.chance.one_in(3);
        for _ in 0..ROUNDS {
            self.judged()?;
            let mut waits = self.mend();
            for (name, phase) in self.candidates() {
                if phase != Phase::Paused {
                    waits = true;
                } else if !stays_paused {
                    waits = true;
                    let name = unit(&name);
                    let _ = self
                        .world
                        .fleet
                        .registry
                        .order(&name, Order::Resume, "x")
                        .await;
                }
            }
            if !waits && self.astray().is_empty() {
                return Ok(());
            }
            sleep(ROUND).await;
        }
        let astray = self.astray();
        let candidates = self.candidates();
        Err(format!("it does not end: {candidates:?}, {astray:#?}"))
    }

    /// Somebody restarts by hand what does not run as it should. Answers whether there was anything.
    fn mend(&self) -> bool {
        let mut mended = false;
        let referee = &self.world.referee;
        for machine in &self.world.fleet.machines {
            for name in machine.systemd.links().into_keys() {
                let seat = (machine.id.clone(), name);
                let runs_well =
                    referee.runs(&seat).is_some() && !machine.systemd.will_crash(&seat.1);
                if referee.ask(|ledger| ledger.belongs(&seat)) && !runs_well {
                    referee.by_hand(|| machine.systemd.heal(&seat.1));
                    mended = true;
                }
            }
        }
        mended
    }

    fn candidates(&self) -> Vec<(String, Phase)> {
        self.world.referee.ask(|ledger| {
            let candidates = ledger.units.iter().filter_map(|(name, unit)| {
                let candidate = unit.record.candidate.as_ref()?;
                unit.is_launched()
                    .then(|| (name.to_string(), candidate.phase))
            });
            candidates.collect()
        })
    }

    /// Machines that do not run what they should: of a unit without a candidate the stable revision, and available;
    /// of one that is paused, something.
    fn astray(&self) -> Vec<String> {
        let mut astray = Vec::new();
        for machine in &self.world.fleet.machines {
            self.world.referee.ask(|ledger| {
                for (name, unit) in &ledger.units {
                    let seat = (machine.id.clone(), name.clone());
                    if !ledger.belongs(&seat) || unit.record.candidate.is_some() {
                        continue;
                    }
                    let report = ledger.report(&seat);
                    let stable = unit.record.stable.number;
                    let is = report.is_some_and(|it| it.available && it.revision == stable);
                    if !is {
                        let id = machine.id.as_str().trim_start_matches('0');
                        astray.push(format!("{name} on {id} should be {stable}: {report:?}"));
                    }
                }
            });
        }
        astray
    }

    /// What must be so once nothing is left to do.
    async fn is_at_rest(&mut self) -> Result<(), String> {
        for machine in &self.world.fleet.machines {
            let running = machine.running().await;
            let seat = |name: &fleet_core::unit::UnitName| (machine.id.clone(), name.clone());
            let id = machine.id.as_str().trim_start_matches('0');
            let units: Vec<_> = self.world.referee.ask(|ledger| {
                let units = ledger.units.iter();
                units
                    .map(|(name, unit)| {
                        let stable = super::ledger::version(&unit.record.stable.content);
                        let candidate = unit.record.candidate.is_some();
                        (name.clone(), ledger.belongs(&seat(name)), stable, candidate)
                    })
                    .collect()
            });
            for (name, belongs, stable, candidate) in &units {
                let runs = running.contains(name.as_str());
                if runs != *belongs {
                    return Err(format!(
                        "{name} runs on {id}: {runs}, belongs there: {belongs}"
                    ));
                }
                let version = self.world.referee.runs(&seat(name));
                if runs && !candidate && version != *stable {
                    return Err(format!(
                        "{name} on {id} runs {version:?}, and {stable:?} is stable"
                    ));
                }
            }
            if let Some(name) = running
                .iter()
                .find(|name| !units.iter().any(|it| it.0.as_str() == *name))
            {
                return Err(format!("{name} runs on {id}, and there is no such unit"));
            }
        }
        quiet().await;
        self.world.fleet.take_logs();
        let before = self.everything().await;
        // That long in some of them only: it is much of the work.
        let idle = Duration::from_secs(self.chance.pick(&[3600, 120, 120, 120, 120, 120]));
        sleep(idle).await;
        let after = self.everything().await;
        if after.revision != before.revision {
            let written = after
                .entries
                .iter()
                .filter(|(_, entry)| entry.modified > before.revision);
            let written: Vec<_> = written
                .map(|(key, entry)| (key, String::from_utf8_lossy(&entry.value)))
                .collect();
            return Err(format!(
                "{idle:?} with nothing to do changed the registry: {written:#?}"
            ));
        }
        for machine in &mut self.world.fleet.machines {
            machine.kill().await;
            machine.start();
        }
        quiet().await;
        for (log, machine) in self
            .world
            .fleet
            .take_logs()
            .iter()
            .zip(&self.world.fleet.machines)
        {
            if !log.is_empty() {
                return Err(format!("a second pass on {}: {log:?}", machine.id));
            }
        }
        match self.astray() {
            astray if astray.is_empty() => Ok(()),
            astray => Err(format!("after a second pass: {astray:#?}")),
        }
    }

    async fn everything(&self) -> Snapshot {
        let all = self.world.fleet.store.list(&[""]).await;
        all.expect("lists")
    }
}
