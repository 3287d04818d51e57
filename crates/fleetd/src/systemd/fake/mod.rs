//! A systemd in memory, for tests, simulations and benches: deterministic, and moved by tokio's
//! clock alone.
//!
//! It knows what fleet relies on: files need a link, a changed file of a loaded unit needs a
//! reload, jobs take their time, `/run` does not survive a reboot. It knows nothing of
//! dependencies.

mod seam;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleet_core::trigger::triggered;
use fleet_core::unit::{Content, UnitKind, UnitName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::changes::Changes;
use super::{Ended, Result, SystemdError};
use unit::Unit;
pub use unit::{Behaviour, Outcome};

/// When a fake's machine booted, in milliseconds since 1970: times in reports look like times.
const BOOTED: u64 = 1_800_000_000_000;

/// How a unit changed.
#[derive(Clone, Copy, Debug)]
pub struct Happened<'a> {
    /// What was asked of it (`start`, `restart`, `stop`, `remove`); none if it moved by itself.
    pub asked: Option<&'static str>,
    /// Whether it was active before.
    pub was_active: bool,
    /// Whether it is now.
    pub is_active: bool,
    /// Its file, as systemd read it last.
    pub file: &'a Content,
}

type Observer = Box<dyn Fn(&UnitName, Happened<'_>) + Send>;
type Script = Box<dyn Fn(&Content) -> Behaviour + Send>;

/// The machine's systemd, as far as fleet can tell.
pub struct Fake {
    world: Mutex<World>,
    changes: Changes,
    /// A transition was planned that may come before the one that is waited for.
    planned: Notify,
}

struct World {
    booted: Instant,
    soft_reboots: u32,
    available: bool,
    shutting_down: bool,
    files: BTreeMap<UnitName, Content>,
    /// Linked units, and whether their `[Install]` section is linked too.
    links: BTreeMap<UnitName, bool>,
    units: BTreeMap<UnitName, Unit>,
    /// Units that another unit refers to: systemd keeps them in memory.
    held: BTreeSet<UnitName>,
    /// How jobs ended, until somebody asks.
    units_ended: BTreeMap<UnitName, Ended>,
    /// All that was due has happened, and no more is until then; none where that is not known.
    settled: Option<Until>,
    foreign: BTreeMap<UnitName, String>,
    behaviours: BTreeMap<UnitName, Behaviour>,
    script: Script,
    observer: Option<Observer>,
    calls: BTreeMap<&'static str, u64>,
    log: Vec<String>,
}

/// Until that moment, or, without one, for good.
#[derive(Clone, Copy)]
struct Until(Option<Instant>);

impl Until {
    fn is_after(self, now: Instant) -> bool {
        self.0.is_none_or(|until| until > now)
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// A machine that has just booted and has no unit of fleet.
    pub fn new() -> Self {
        Self {
            world: Mutex::new(World {
                booted: Instant::now(),
                soft_reboots: 0,
                available: true,
                shutting_down: false,
                files: BTreeMap::new(),
                links: BTreeMap::new(),
                units: BTreeMap::new(),
                held: BTreeSet::new(),
                units_ended: BTreeMap::new(),
                settled: None,
                foreign: BTreeMap::new(),
                behaviours: BTreeMap::new(),
                script: Box::new(Behaviour::of),
                observer: None,
                calls: BTreeMap::new(),
                log: Vec::new(),
            }),
            changes: Changes::new(),
            planned: Notify::new(),
        }
    }

    /// From its next start on this unit behaves so, whatever its file says.
    pub fn behave(&self, name: &UnitName, behaviour: Behaviour) {
        self.world().behaviours.insert(name.clone(), behaviour);
    }

    /// From its next start on every unit behaves as that says of its file.
    pub fn behave_as(&self, script: impl Fn(&Content) -> Behaviour + Send + 'static) {
        self.world().script = Box::new(script);
    }

    /// Tells the observer of every change of a unit: of one that was asked for at once, of others
    /// when they are noticed. It must not call back.
    pub fn observe(&self, observer: impl Fn(&UnitName, Happened<'_>) + Send + 'static) {
        self.world().observer = Some(Box::new(observer));
    }

    /// Lets another owner's unit of this name appear, or go (none).
    pub fn set_foreign(&self, name: &UnitName, origin: Option<&str>) {
        let mut world = self.world();
        match origin {
            Some(origin) => world.foreign.insert(name.clone(), origin.to_owned()),
            None => world.foreign.remove(name),
        };
    }

    /// Changes fleet's file of a unit, or removes it (none), as a person does.
    pub fn change_file(&self, name: &UnitName, content: Option<Content>) {
        let mut world = self.world();
        match content {
            Some(content) => world.files.insert(name.clone(), content),
            None => world.files.remove(name),
        };
        self.changes.mark(name.as_str());
    }

    /// Removes systemd's link to fleet's file of a unit, as a person does.
    pub fn remove_link(&self, name: &UnitName) {
        self.world().links.remove(name);
        self.changes.mark(name.as_str());
    }

    /// Takes systemd off the bus, or brings it back. Its units run on; what happens is told on
    /// return.
    pub fn set_available(&self, available: bool) {
        self.world().available = available;
        if available {
            self.changes.mark_all();
        }
    }

    /// Lets the host begin to shut down. A [`reboot`](Self::reboot) ends it.
    pub fn shut_down(&self) {
        self.world().shutting_down = true;
    }

    /// Ends the main process of a unit that is active, as a crash does.
    pub fn crash(&self, name: &UnitName) {
        let mut world = self.world();
        if let Some(unit) = world.unit_mut(name) {
            let was_active = unit.is_active();
            unit.crash(Instant::now());
            self.changes.mark(name.as_str());
            tell(&world.observer, name, &world.units[name], None, was_active);
        }
    }

    /// Whether a unit is about to fail though it is active.
    pub fn will_crash(&self, name: &UnitName) -> bool {
        let world = self.world();
        let unit = world.units.get(name);
        unit.is_some_and(|unit| unit.is_active() && unit.next().is_some())
    }

    /// Keeps a unit that runs from being stopped, as a process in a mount does, or no longer.
    pub fn set_busy(&self, name: &UnitName, busy: bool) {
        if let Some(unit) = self.world().unit_mut(name) {
            unit.set_busy(busy);
        }
    }

    /// Has another unit refer to this one, so that systemd keeps it in memory.
    pub fn hold(&self, name: &UnitName) {
        let mut world = self.world();
        world.held.insert(name.clone());
        world.load(name);
    }

    /// Starts a unit, as a socket, a timer, or a target that wants it does. Answers whether systemd
    /// still has it.
    pub fn trigger(&self, name: &UnitName) -> bool {
        self.job("start", name, Unit::start).is_ok()
    }

    /// Restarts a unit, as a person does.
    pub fn heal(&self, name: &UnitName) {
        // Refused if there is no such unit: nothing to heal.
        let _ = self.job("restart", name, Unit::restart);
    }

    /// Restarts the machine: all that lies in /run is gone, and nothing runs. What was set up for
    /// tests stays.
    pub fn reboot(&self) {
        let mut world = self.world();
        world.booted = Instant::now();
        world.soft_reboots = 0;
        world.files.clear();
        world.links.clear();
        self.end_units(&mut world, "reboot");
    }

    /// Restarts all but the kernel: /run stays, and units run on that survive the last signal.
    pub fn soft_reboot(&self) {
        let mut world = self.world();
        world.soft_reboots += 1;
        self.end_units(&mut world, "soft-reboot");
    }

    fn end_units(&self, world: &mut World, how: &str) {
        world.settled = None;
        world.shutting_down = false;
        for (name, mut unit) in std::mem::take(&mut world.units) {
            if how == "soft-reboot" && unit.survives() {
                world.units.insert(name, unit);
                continue;
            }
            let was_active = unit.is_active();
            unit.power_off();
            tell(&world.observer, &name, &unit, None, was_active);
        }
        world.log.push(how.to_owned());
        self.changes.mark_all();
    }

    /// The linked units, and whether their `[Install]` sections are.
    pub fn links(&self) -> BTreeMap<UnitName, bool> {
        self.world().links.clone()
    }

    /// How often a method of [`Systemd`](super::Systemd) was called, such as `reload` or `states`.
    pub fn calls(&self, method: &str) -> u64 {
        self.world().calls.get(method).copied().unwrap_or_default()
    }

    /// What was changed, in order: `write a.service`, `reload`, `start a.service`. Empty again
    /// afterwards.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.world().log)
    }

    /// The world as it is now: due transitions have happened.
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if world.settled.is_some_and(|until| until.is_after(now)) {
            return world;
        }
        let World {
            units,
            observer,
            held,
            units_ended,
            ..
        } = &mut *world;
        // An inactive unit that nothing refers to is dropped at once, and what systemd knew of its
        // last run too.
        units.retain(|name, unit| {
            let was_active = unit.is_active();
            if unit.advance(now) {
                self.changes.mark(name.as_str());
                tell(observer, name, unit, None, was_active);
            }
            if let Some(ended) = unit.take_end() {
                units_ended.insert(name.clone(), ended);
            }
            unit.lives() || held.contains(name) && !unit.is_lost()
        });
        world.settled = Some(Until(units.values().filter_map(Unit::next).min()));
        world
    }

    /// The world behind the bus.
    fn call(&self, method: &'static str) -> Result<MutexGuard<'_, World>> {
        let mut world = self.world();
        *world.calls.entry(method).or_default() += 1;
        if world.available {
            Ok(world)
        } else {
            Err(SystemdError::Unavailable("systemd left the bus".to_owned()))
        }
    }

    fn job(
        &self,
        method: &'static str,
        name: &UnitName,
        ask: fn(&mut Unit, Behaviour, Instant),
    ) -> Result<()> {
        let mut world = self.call(method)?;
        world.log.push(format!("{method} {name}"));
        let unit = world
            .load(name)
            .filter(|_| !name.is_template())
            .ok_or_else(|| SystemdError::Refused(format!("Unit {name} not found.")))?;
        let file = unit.definition().clone();
        let behaviour = world.behaviours.get(name).copied();
        let mut behaviour = behaviour.unwrap_or_else(|| (world.script)(&file));
        if method != "stop" && !world.may_start(name, &file) {
            behaviour.result = Outcome::NotStarted("failed");
        }
        world.units_ended.remove(name);
        if let Some(unit) = world.unit_mut(name) {
            let was_active = unit.is_active();
            ask(unit, behaviour, Instant::now());
            tell(
                &world.observer,
                name,
                &world.units[name],
                Some(method),
                was_active,
            );
        }
        self.changes.mark(name.as_str());
        self.planned.notify_one();
        Ok(())
    }
}

fn tell(
    observer: &Option<Observer>,
    name: &UnitName,
    unit: &Unit,
    asked: Option<&'static str>,
    was_active: bool,
) {
    if let Some(observer) = observer {
        let happened = Happened {
            asked,
            was_active,
            is_active: unit.is_active(),
            file: unit.definition(),
        };
        observer(name, happened);
    }
}

impl World {
    /// The unit, read from its linked file if systemd does not have it yet.
    fn load(&mut self, name: &UnitName) -> Option<&mut Unit> {
        let linked = self.links.contains_key(name);
        if let Some(content) = self.files.get(name).filter(|_| linked) {
            let (booted, settled) = (self.booted, &mut self.settled);
            let unit = self.units.entry(name.clone());
            return Some(unit.or_insert_with(|| {
                *settled = None;
                Unit::new(name.kind(), content.clone(), booted)
            }));
        }
        self.units.get_mut(name)
    }

    /// The unit, to be changed.
    fn unit_mut(&mut self, name: &UnitName) -> Option<&mut Unit> {
        self.settled = None;
        self.units.get_mut(name)
    }

    /// What starts another unit is refused without it, and a socket while its service runs.
    fn may_start(&mut self, name: &UnitName, file: &Content) -> bool {
        let Some(other) = triggered(name, Some(file)) else {
            return true;
        };
        let is_socket = name.kind() == UnitKind::Socket;
        let unit = self.load(&other);
        unit.is_some_and(|unit| !(unit.is_lost() || is_socket && unit.is_active()))
    }

    fn foreign(&self, name: &UnitName) -> Option<String> {
        let mut names = std::iter::once(name.clone()).chain(name.template());
        names.find_map(|name| self.foreign.get(&name).cloned())
    }
}
