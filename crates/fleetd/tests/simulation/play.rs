//! Plays one story: each step in its moment, and after each of them everything is judged.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet_core::directory::File;
use fleet_core::keys;
use fleet_core::record::Owner;
use fleet_core::trust::Footing;
use fleet_core::unit::{Content, TargetState, UnitName};
use fleetd::registry::{Registry, Result};
use fleetd::store::{Embedded, Store as _, Write};
use tokio::time::{Instant, sleep};

use super::draw::{FROM_DIRECTORY, UNITS};
use super::nature::file;
use super::step::{Bad, Hand, Lost, Step, Story, Whose};
use super::world::{Task, World};
use crate::fleet::{cluster, unit};

/// How long after one key another is deleted or written, where somebody does that one by one.
const KEY_BY_KEY: Duration = Duration::from_millis(3);

/// What nobody can read.
const GARBAGE: &[u8] = b"{\"format\":1,";

/// A story that is played.
pub(crate) struct Play {
    pub(crate) world: World,
    pub(crate) story: Story,
    /// What came of it, for people.
    pub(crate) told: Vec<String>,
    begin: Instant,
}

impl Play {
    pub(crate) async fn of(story: &Story, log: bool) -> Self {
        Self {
            world: World::of(&story.fleet, log).await,
            story: story.clone(),
            told: Vec::new(),
            begin: Instant::now(),
        }
    }

    /// Plays it; answers what was broken.
    pub(crate) async fn play(&mut self) -> Result<(), String> {
        for (wait, step) in self.story.steps.clone() {
            sleep(Duration::from_millis(wait)).await;
            self.tell(&format!("{step:?}"));
            self.perform(step).await;
            self.judged()?;
        }
        self.tell("everything is mended");
        self.calm_down().await?;
        self.is_at_rest().await?;
        self.judged()
    }

    pub(crate) fn judged(&self) -> Result<(), String> {
        match &self.world.referee.broken()[..] {
            [] => Ok(()),
            broken => Err(broken.join("\n")),
        }
    }

    pub(crate) fn tell(&mut self, what: &str) {
        let at = self.begin.elapsed();
        self.told
            .push(format!("{:9.3} s  {what}", at.as_secs_f64()));
    }

    /// Somebody orders something over a host's API, and other things happen before the answer.
    fn order<F>(&mut self, on: usize, order: impl FnOnce(Registry) -> F)
    where
        F: Future<Output = Result<Option<u32>>> + Send + 'static,
    {
        if !self.world.fleet.machines[on].is_on() {
            return;
        }
        let ordered = order(self.world.registry(on));
        let referee = self.world.referee.clone();
        let trust = self.world.fleet.machines[on].trust();
        let task = tokio::spawn(async move {
            // As an API does; `watch` would draw lots for whom to wake first.
            for _ in 0..40 {
                if trust.borrow().footing != Footing::Unheard {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            if let Ok(Some(version)) = ordered.await {
                referee.acknowledged(version);
            }
        });
        self.world.beside[on].orders.push(Task(task));
    }

    async fn perform(&mut self, step: Step) {
        match step {
            Step::Submit {
                on,
                unit: at,
                version,
                options,
            } => {
                let (name, placed) = UNITS[at];
                let content = file(version, placed, &options);
                self.order(on, async move |registry: Registry| {
                    submit(&registry, &unit(name), content).await?;
                    Ok(Some(version))
                });
            }
            Step::Target {
                on,
                unit: at,
                target,
            } => self.order(on, async move |registry: Registry| {
                let name = unit(UNITS[at].0);
                registry.set_target(&name, target).await?;
                Ok(None)
            }),
            Step::Order {
                on,
                unit: at,
                order,
            } => self.order(on, async move |registry: Registry| {
                let name = unit(UNITS[at].0);
                registry.order(&name, order.into(), "somebody").await?;
                Ok(None)
            }),
            Step::Destroy { on, unit: at } => self.order(on, async move |registry: Registry| {
                registry.destroy(&unit(UNITS[at].0)).await?;
                Ok(None)
            }),
            Step::Label { on, of, gpu } => {
                let value = gpu.then(|| "yes".to_owned());
                let change = [(self.world.id(of), "gpu".to_owned(), value)];
                self.order(on, async move |registry: Registry| {
                    registry.set_metadata(&change).await?;
                    Ok(None)
                });
            }
            Step::Schedule { on, of, how } => {
                let id = self.world.id(of);
                self.order(on, async move |registry: Registry| {
                    registry.set_scheduling(&id, how).await?;
                    Ok(None)
                });
            }
            Step::File { version, options } => {
                let content = file(version, "", &options);
                let file = Some(File::Content(content));
                self.world.directory.put(FROM_DIRECTORY, file);
            }
            Step::FileGoes => self.world.directory.put(FROM_DIRECTORY, None),
            Step::Accept { on } => self.accept(on).await,
            Step::Bad { what, on, unit } => self.spoil(what, on, unit).await,
            Step::Backup
            | Step::Restore { .. }
            | Step::Wipe { .. }
            | Step::Other { .. }
            | Step::PutBack { .. } => self.other_registry(step).await,
            Step::Weather { .. }
            | Step::Watches { .. }
            | Step::EtcdRestarts
            | Step::Clock { .. } => self.around(step),
            _ => self.on_a_host(step).await,
        }
    }

    /// What happens between hosts and the registry.
    fn around(&self, step: Step) {
        let world = &self.world;
        match step {
            Step::Weather { of, whose, sky } => {
                for at in world.among(of) {
                    let [agent, engine] = world.ways(at);
                    if whose != Whose::Engines {
                        agent.turn(sky.into());
                    }
                    if whose != Whose::Agents {
                        engine.turn(sky.into());
                    }
                }
            }
            Step::Watches { of, compacted } => {
                for way in world.among(of).into_iter().flat_map(|at| world.ways(at)) {
                    match compacted {
                        true => way.compact(),
                        false => way.show(&world.stores[way.shows()], way.shows()),
                    }
                }
            }
            Step::EtcdRestarts => {
                world.stores.iter().for_each(Embedded::extend_leases);
                let all = (0..world.beside.len()).flat_map(|at| world.ways(at));
                all.for_each(|way| way.show(&world.stores[way.shows()], way.shows()));
            }
            Step::Clock { of, seconds } => {
                for at in world.among(of) {
                    let off = &world.beside[at].off;
                    off.fetch_add(seconds * 1000, Ordering::Relaxed);
                }
            }
            _ => unreachable!("it is of another kind"),
        }
    }

    /// What happens on a host.
    async fn on_a_host(&mut self, step: Step) {
        match step {
            Step::Freeze { on, whole, millis } => {
                self.excuse(on);
                let engine = self.world.beside[on].frozen.clone();
                let agent = self.world.fleet.machines[on].frozen.clone();
                engine.send_replace(true);
                let time = Duration::from_millis(millis);
                if whole {
                    agent.send_replace(true);
                    let id = self.world.id(on);
                    self.world.referee.freezes(&id, time);
                }
                tokio::spawn(async move {
                    sleep(time).await;
                    engine.send_replace(false);
                    agent.send_replace(false);
                });
            }
            Step::Kill { on } => {
                self.excuse(on);
                self.world.end(on).await;
            }
            Step::Upgrade { on } => {
                self.excuse(on);
                self.world.end(on).await;
                self.world.start(on);
            }
            Step::Stick { on, calls } => {
                self.excuse(on);
                self.world.fleet.machines[on].hands.last(Some(calls));
            }
            Step::Reboot { on, without } => self.reboot(on, without).await,
            Step::Crash { on, unit: at } => {
                let systemd = &self.world.fleet.machines[on].systemd;
                systemd.crash(&unit(UNITS[at].0));
            }
            Step::Bus { on, there } => {
                self.excuse(on);
                self.world.fleet.machines[on].systemd.set_available(there);
            }
            Step::Foreign {
                on,
                unit: at,
                there,
            } => self.foreign(on, at, there),
            Step::ByHand { on, unit: at, what } => {
                let systemd = &self.world.fleet.machines[on].systemd;
                let name = unit(UNITS[at].0);
                // Of what fleet has put there.
                if systemd.links().contains_key(&name) {
                    let id = self.world.id(on);
                    self.world.referee.edits((id, name.clone()));
                    match what {
                        Hand::Change => {
                            systemd.change_file(&name, Some(Content::from("[Service]\n")));
                        }
                        Hand::Remove => systemd.change_file(&name, None),
                        Hand::Unlink => systemd.remove_link(&name),
                    }
                }
            }
            Step::Lose { on, file, damaged } => {
                self.excuse(on);
                self.world.end(on).await;
                self.lose(on, file, damaged);
                self.world.start(on);
            }
            _ => unreachable!("it is of another kind"),
        }
    }

    /// Of this machine nobody expects that it starts all there is within moments.
    fn excuse(&self, on: usize) {
        self.world.referee.excuses(&self.world.id(on));
    }

    pub(super) fn foreign(&self, on: usize, at: usize, there: bool) {
        let name = unit(UNITS[at].0);
        let machine = &self.world.fleet.machines[on];
        let origin = there.then_some("/etc/systemd/system");
        machine.systemd.set_foreign(&name, origin);
        let seat = (machine.id.clone(), name);
        self.world.referee.set_foreign(seat, there);
    }

    pub(super) async fn reboot(&mut self, on: usize, without: bool) {
        self.world.end(on).await;
        let machine = &mut self.world.fleet.machines[on];
        if without {
            machine.weather.turn(crate::weather::Sky::Away);
        }
        machine.systemd.set_available(true);
        let id = machine.id.clone();
        let due = self.world.referee.court().files[&id].launched();
        self.world.referee.boots(&id, due);
        // It starts the agent, too.
        self.world.fleet.machines[on].reboot().await;
        self.world.fleet.machines[on].kill().await;
        self.world.start(on);
    }

    fn lose(&self, on: usize, file: Lost, damaged: bool) {
        let machine = &self.world.fleet.machines[on];
        let desired = machine.desired_file();
        let seen = desired.with_file_name("seen.json");
        let referee = &self.world.referee;
        let files = match file {
            Lost::Marks => {
                referee.loses_marks(&machine.id);
                vec![machine.marks_file()]
            }
            Lost::Desired => vec![desired],
            Lost::All => vec![desired, seen],
            Lost::Published => vec![desired.with_file_name("directory.json")],
        };
        if matches!(file, Lost::Desired | Lost::All) {
            if !damaged {
                // As one does to make a machine take whatever registry it sees.
                referee.forgets(&machine.id);
            }
            referee.loses_marks(&machine.id);
        }
        for path in files {
            let there = std::fs::read(&path).ok();
            let _ = std::fs::remove_file(&path);
            if let Some(bytes) = there.filter(|_| damaged) {
                std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
            }
        }
    }

    async fn other_registry(&mut self, step: Step) {
        self.world.referee.forget_counts();
        match step {
            Step::Backup => {
                let home = self.world.home;
                let copy = self.world.stores[home].backup();
                self.world.backups.push((copy, home));
            }
            Step::Restore { of, copy } if copy < self.world.backups.len() => {
                let number = self.world.restore(copy).await;
                for at in self.world.among(of) {
                    self.world.show(at, number);
                }
            }
            Step::Wipe { by_key, refill } => self.wipe(by_key, refill).await,
            Step::Other { of, empty } => {
                let store = match empty {
                    true => Embedded::in_memory(),
                    false => cluster("another").await,
                };
                let number = self.world.open(store, None).await;
                for at in self.world.among(of) {
                    self.world.show(at, number);
                }
            }
            Step::PutBack { of } => {
                for at in self.world.among(of) {
                    self.world.show(at, self.world.home);
                }
            }
            _ => {}
        }
    }

    async fn wipe(&self, by_key: bool, refill: bool) {
        let store = &self.world.stores[self.world.home];
        let all = store.list(&[""]).await.expect("lists").entries;
        if by_key {
            for key in all.keys() {
                let _ = store.commit(vec![], vec![Write::Delete(key.clone())]).await;
                sleep(KEY_BY_KEY).await;
            }
        } else {
            let everything = vec![Write::DeletePrefix(String::new())];
            let _ = store.commit(vec![], everything).await;
        }
        let leased = [keys::MACHINES, keys::REPORTS, keys::LEADER];
        let lasting = |key: &&String| !leased.iter().any(|prefix| key.starts_with(prefix));
        for key in all.keys().filter(lasting).filter(|_| refill) {
            self.put(key.clone(), all[key].value.to_vec()).await;
            sleep(KEY_BY_KEY).await;
        }
    }

    /// Writes into the fleet's registry, past everybody.
    pub(super) async fn put(&self, key: String, value: Vec<u8>) {
        let write = Write::Put {
            key,
            value,
            lease: None,
        };
        let store = &self.world.stores[self.world.home];
        store.commit(vec![], vec![write]).await.expect("written");
    }

    /// Somebody accepts what a host holds, as it is.
    pub(super) async fn accept(&self, on: usize) {
        let machine = &self.world.fleet.machines[on];
        if !machine.is_on() || machine.weather.sky() != crate::weather::Sky::Clear {
            return;
        }
        let store = &self.world.stores[machine.weather.shows()];
        let all = store.list(&[keys::CLUSTER]).await.expect("lists");
        let shown = all.entries.get(keys::CLUSTER);
        let shown = shown.and_then(super::ledger::decode::<fleet_core::record::ClusterRecord>);
        let shown = shown.map(|it| it.id).unwrap_or_default();
        let registry = self.world.registry(on);
        let _ = registry
            .accept(&shown, "somebody", &self.world.new_id())
            .await;
    }

    async fn spoil(&self, what: Bad, on: usize, at: usize) {
        let (id, name) = (self.world.id(on), unit(UNITS[at].0));
        let key = match what {
            Bad::NewUnit => keys::unit(&unit("bad.service")),
            Bad::Unit => keys::unit(&name),
            Bad::Report => keys::report(&id),
            Bad::ReportBase => keys::report_base(&id),
            Bad::Grant => keys::grant(&id, &name),
            Bad::Rollout => keys::rollout(&name),
            Bad::Metadata => keys::metadata(&id),
            Bad::Machine => format!("{}{}", keys::MACHINES, "f".repeat(32)),
            Bad::Cluster => keys::CLUSTER.to_owned(),
            Bad::Acceptance => keys::ACCEPTANCE.to_owned(),
            Bad::File => {
                let unreadable = File::Unreadable("it is a joke".to_owned());
                self.world.directory.put("bad.service", Some(unreadable));
                let local = File::Content(Content::from("[Service]\nExecStart=/x\n"));
                return self.world.directory.put("local.service", Some(local));
            }
        };
        let store = &self.world.stores[self.world.home];
        let all = store.list(&[&key]).await.expect("lists");
        // Nobody's unit comes into being by it.
        let invents = what == Bad::Unit || what == Bad::Cluster;
        if !invents || all.entries.contains_key(&key) {
            self.put(key, GARBAGE.to_vec()).await;
        }
    }
}

pub(super) async fn submit(registry: &Registry, name: &UnitName, content: Content) -> Result<()> {
    let launched = Some(TargetState::Launched);
    let submitted = registry.submit(name, content, Owner::Api, launched);
    submitted.await.map(drop)
}
