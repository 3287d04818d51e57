//! The agent: makes this machine's systemd agree with the registry, and tells the registry how that
//! went.
//!
//! ```text
//!   registry --watch--> Index --desired--> plan --tasks--> systemd
//!                         |                 ^                 |
//!                    desired.json           +---- signals ----+--> report --> registry
//! ```
//!
//! A unit that runs here changes to another revision, where that restarts it, only by the leader's
//! grant to this machine's present session; with another session, the same registry may mean
//! something else.
//!
//! The loop is level-triggered: an event only means "look again". While the registry is away, or
//! held, the desired state of before stands: from memory, or after a restart from the state
//! directory. Without either, nothing is touched at all.

mod clocks;
mod desired_file;
mod duplicate_id;
mod goodbye;
mod host;
mod index;
mod report_base;
mod session;
#[cfg(test)]
mod tests;
mod unit;
mod unit_report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::machine::{MachineId, Scheduling};
use fleet_core::plan::Desired;
use fleet_core::record::MachineRecord;
use fleet_core::trust::{Following, Footing, Heard, Held, Log, Memory, Seen, Trust};
use fleet_core::unit::{Content, UnitName};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::desired_file::Saved;
pub use self::goodbye::Goodbye;
use self::host::Marks;
use self::host::{Cause, Host};
use self::index::Index;
use self::session::{Alive, Outgoing, ReportBody, Session};
use crate::backoff::Backoff;
use crate::health::Heart;
use crate::mirror::{Mirror, Update};
use crate::store::Store;
use crate::systemd::{Dirty, Systemd};

/// The longest wait before what went wrong is tried again. Each try costs a few calls for each unit
/// it is about.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// The least wait before a unit that is busy is asked to stop again: each try is a process, and
/// lines in the journal.
const BUSY_RETRY: Duration = Duration::from_secs(3);

/// What an agent is made of.
pub struct Config {
    /// The machine it is for.
    pub me: MachineId,
    /// What it says of the machine. It may change, as the machine's address does.
    pub presence: watch::Receiver<MachineRecord>,
    /// How long the machine counts as live without a word (`agent_ttl`).
    pub ttl: Duration,
    /// The desired state is kept here, for a start without the registry; and beside it, in
    /// `seen.json`, which registry it came from, for a start without that file.
    pub desired_file: PathBuf,
    /// What was started is kept here until the next boot; none keeps it in memory only.
    pub marks_file: Option<PathBuf>,
}

/// What the agent shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    /// How many units this machine should have.
    pub wanted: usize,
    /// How many of them are ready.
    pub ready: usize,
    /// Why the registry is not followed just now.
    pub held: Option<String>,
    /// What else is wrong, by unit or thing.
    pub problems: BTreeMap<String, String>,
}

/// The agent.
pub struct Agent {
    config: Config,
    store: Arc<dyn Store>,
    systemd: Arc<dyn Systemd>,
    heart: Heart,
    index: Index,
    host: Host,
    /// What this machine should have, and the registry that said so; none until one did.
    saved: Option<Saved>,
    /// What runs here by the files and marks, for as long as `saved` is none: a desired state that
    /// cannot be read is no leave to restart anything.
    in_place: BTreeMap<UnitName, Desired>,
    /// What was decided about the registry.
    following: Following,
    /// Whether the registry is to be listed anew: by its events it might be followed again.
    wants_list: bool,
    /// Whether what is wanted has lost its numbers since the host was last told: that is a change
    /// of every unit.
    moved: bool,
    /// What is wrong with the state directory.
    disk: Option<String>,
    /// Why systemd was not asked or did not answer.
    away: Option<String>,
    /// Whether it has the desired state of a registry.
    on_disk: bool,
    word: watch::Sender<Outgoing>,
    /// From the session.
    alive: watch::Sender<Option<Alive>>,
    /// From the session: that another machine has this one's id.
    twin: watch::Sender<Option<String>>,
    /// To the session: counts what may be news under this machine's id.
    place: watch::Sender<u64>,
    standing: watch::Sender<AgentStatus>,
    trust: watch::Sender<Trust>,
    newest: watch::Sender<Option<Arc<BTreeMap<UnitName, Content>>>>,
    goodbye: Goodbye,
}

impl Agent {
    /// An agent that has not looked at anything yet.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        systemd: Arc<dyn Systemd>,
        heart: Heart,
    ) -> Self {
        let marks = config
            .marks_file
            .clone()
            .map_or_else(Marks::in_memory, Marks::open);
        let metadata = config.presence.borrow().metadata.clone();
        Self {
            index: Index::new(config.me.clone(), metadata),
            host: Host::new(systemd.clone(), heart.clone(), marks),
            config,
            store,
            systemd,
            heart,
            saved: None,
            in_place: BTreeMap::new(),
            following: Following::of(Memory::Never),
            wants_list: false,
            moved: false,
            disk: None,
            away: None,
            on_disk: false,
            word: watch::Sender::default(),
            alive: watch::Sender::default(),
            twin: watch::Sender::default(),
            place: watch::Sender::default(),
            standing: watch::Sender::default(),
            trust: watch::Sender::new(Trust::of(Memory::Never)),
            newest: watch::Sender::default(),
            goodbye: Goodbye::default(),
        }
    }

    /// Returns a channel with this machine's trust in the registry, for the other parts of fleetd
    /// that change the registry.
    pub fn trust(&self) -> watch::Receiver<Trust> {
        self.trust.subscribe()
    }

    /// Follows how the agent stands.
    pub fn standing(&self) -> watch::Receiver<AgentStatus> {
        self.standing.subscribe()
    }

    /// Has it report that the host is shutting down.
    pub fn goodbye(&self) -> Goodbye {
        self.goodbye.clone()
    }

    /// The newest content of every unit in the registry that this machine follows.
    pub fn newest(&self) -> watch::Receiver<Option<Arc<BTreeMap<UnitName, Content>>>> {
        self.newest.subscribe()
    }

    /// Runs until it is dropped; that touches no unit. `directory`: the problems of the units
    /// directory.
    pub async fn run(mut self, directory: watch::Receiver<BTreeMap<String, String>>) {
        let session = Session {
            store: self.store.clone(),
            me: self.config.me.clone(),
            presence: self.config.presence.clone(),
            ttl: self.config.ttl,
            alive: self.alive.clone(),
            twin: self.twin.clone(),
            place: self.place.subscribe(),
            word: self.word.subscribe(),
            directory,
            systemd: self.systemd.clone(),
            goodbye: self.goodbye.clone(),
        };
        tokio::join!(session.run(), self.follow());
    }

    async fn follow(&mut self) {
        self.load();
        if self.saved.is_none() {
            self.in_place = self.host.in_place().await;
        }
        let backoff = Backoff::new(self.config.me.as_str());
        let prefixes = index::prefixes(&self.config.me);
        let list = |agent: &Self| {
            let (store, prefixes) = (agent.store.clone(), prefixes.clone());
            let mirror = Mirror::new(store, prefixes, backoff.clone());
            mirror.beside(index::beside).follow()
        };
        let mut events = list(self);
        let systemd = self.systemd.clone();
        let mut retry_after = backoff.clone().up_to(LONGEST_RETRY);
        let mut retry_at: Option<Instant> = None;
        let mut alive = self.alive.subscribe();
        let mut twin = self.twin.subscribe();
        let mut presence = self.config.presence.clone();
        loop {
            let (due_at, due) = self.host.next_available().unzip();
            let cause = tokio::select! {
                biased;
                event = events.recv() => {
                    let Some(event) = event else { return };
                    let more = std::iter::from_fn(|| events.try_recv());
                    let wanted = self.take_all(std::iter::once(event).chain(more));
                    if std::mem::take(&mut self.wants_list) {
                        events = list(self);
                    }
                    let Some(wanted) = wanted else {
                        self.tell();
                        continue;
                    };
                    Cause::Wanted(wanted)
                }
                Ok(()) = alive.changed() => match self.adopt_again() {
                    Some(wanted) => Cause::Wanted(wanted),
                    None => continue,
                },
                Ok(()) = presence.changed() => {
                    let metadata = presence.borrow_and_update().metadata.clone();
                    if !self.index.set_own(metadata) {
                        continue;
                    }
                    match self.adopt_again() {
                        Some(wanted) => Cause::Wanted(wanted),
                        None => continue,
                    }
                }
                Ok(()) = twin.changed() => {
                    self.tell();
                    continue;
                }
                dirty = systemd.changed() => Cause::Host(dirty),
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {
                    // systemd may have restarted it since it was last looked at.
                    Cause::Host(Dirty::Units(due.into_iter().collect()))
                }
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    retry_at = None;
                    Cause::Retry(self.host.to_retry())
                }
            };
            let _busy = self.heart.busy();
            let desired = self.saved.as_ref().map(|saved| &saved.desired);
            let result = self.host.converge(desired, cause).await;
            let away = result.as_ref().err().map(|error| {
                format!("systemd does not answer; units run on, and are looked at again: {error}")
            });
            if let Some(text) = away.as_ref().filter(|_| away != self.away) {
                tracing::warn!("{text}");
            }
            self.away = away;
            if result.is_ok() && !self.host.wants_retry() && self.disk.is_none() {
                retry_after.reset();
                retry_at = None;
            } else if retry_at.is_none() {
                // One that is due stays due: units that change all the time must not push it away.
                let wait = retry_after.wait();
                let wait = match self.host.is_only_busy() {
                    true => wait.max(BUSY_RETRY),
                    false => wait,
                };
                retry_at = Some(Instant::now() + wait);
            }
            if self.disk.is_some() {
                self.save();
            }
            self.tell();
        }
    }

    /// Takes a burst of events as one change of the desired state. Answers the units of which
    /// something else is wanted; none where nothing is wanted otherwise than before. Only its end
    /// counts: behind an instruction may come an empty registry.
    fn take_all(&mut self, burst: impl Iterator<Item = Update>) -> Option<BTreeSet<UnitName>> {
        let obeyed = burst.fold(None, |_, event| self.take(event));
        let changed = obeyed.map(|seen| self.adopt(seen));
        self.tell_trust();
        changed.or_else(|| std::mem::take(&mut self.moved).then(|| self.wanted()))
    }

    /// The units that this machine should have.
    fn wanted(&self) -> BTreeSet<UnitName> {
        let desired = self.saved.iter().flat_map(|saved| saved.desired.keys());
        desired.cloned().collect()
    }

    /// Takes an event into the index. Answers what to adopt the index as; none if it is not to be
    /// obeyed.
    fn take(&mut self, event: Update) -> Option<Seen> {
        if index::is_about_place(&self.config.me, &event) {
            self.place.send_modify(|news| *news += 1);
        }
        let is_list = matches!(event, Update::Reset(_));
        let outcome = match event {
            Update::Away(error) => self.following.take(Heard::Away(&error.to_string())),
            event => {
                self.index.take(event);
                self.following.take(Heard::Says {
                    identity: &self.index.identity,
                    is_list,
                    is_damaged: self.index.metadata_is_damaged(),
                })
            }
        };
        self.wants_list = outcome.relist || self.wants_list && !is_list;
        if let Some(seen) = &outcome.remember {
            self.remember(seen);
        }
        match &outcome.log {
            Some(Log::Followed(cluster)) => tracing::info!(%cluster, "following the registry"),
            Some(Log::Held(reason)) => tracing::warn!("{reason}"),
            None => {}
        }
        outcome.obey
    }

    /// Tells everybody here who may change the registry whether they may, and what this machine
    /// would do if it were followed.
    fn tell_trust(&self) {
        let trust = self.following.trust();
        let footing = match trust.footing {
            Footing::Held(held) => {
                let nothing = BTreeMap::new();
                let before = self.saved.as_ref().map_or(&nothing, |saved| &saved.desired);
                let after = self.index.desired(before, None);
                let of = |from: &BTreeMap<UnitName, Desired>, is: &dyn Fn(&UnitName) -> bool| {
                    from.keys().filter(|name| is(name)).cloned().collect()
                };
                Footing::Held(Held {
                    reason: held.reason,
                    stops: of(before, &|name| !after.contains_key(name)),
                    starts: of(&after, &|name| !before.contains_key(name)),
                    changes: of(&after, &|name| {
                        before.get(name).is_some_and(|was| {
                            let is = &after[name];
                            (&was.content, was.launch) != (&is.content, is.launch)
                        })
                    }),
                })
            }
            other => other,
        };
        let now = Trust { footing, ..trust };
        self.trust.send_if_modified(|told| replace(told, now));
    }

    /// The session has changed: grants may have become valid, though the registry is as it was.
    fn adopt_again(&mut self) -> Option<BTreeSet<UnitName>> {
        let seen = self.following.again(&self.index.identity)?;
        Some(self.adopt(seen))
    }

    /// Makes the index's desired state this machine's. Answers the units of which something else is
    /// wanted.
    fn adopt(&mut self, seen: Seen) -> BTreeSet<UnitName> {
        if self.newest.receiver_count() > 0 {
            let newest = Arc::new(self.index.newest());
            self.newest.send_replace(Some(newest));
        }
        self.move_to(&seen);
        if self.saved.is_none() {
            // The numbers in the marks may be those of another registry. By them a unit would be
            // another one than before.
            self.host.forget_created();
        }
        let in_place = std::mem::take(&mut self.in_place);
        let mut desired = self.saved.take().map_or(in_place, |saved| saved.desired);
        let had_units = !desired.is_empty();
        let session = self.alive.borrow().as_ref().and_then(Alive::session);
        let mut changed = self.index.update(&mut desired, session);
        let unknown = self.index.unknown(&desired);
        let known_again = self.host.unknown.difference(&unknown).cloned();
        changed.extend(known_again.collect::<Vec<_>>());
        self.host.unknown = unknown;
        if self.index.scheduling() == Scheduling::Drained && had_units {
            tracing::info!("this machine is drained: its units are stopped until it is uncordoned");
        }
        // A machine without units belongs to its cluster too.
        let is_other = self.following.adopted(seen.clone());
        self.saved = Some(Saved { seen, desired });
        if std::mem::take(&mut self.moved) {
            changed.append(&mut self.wanted());
        }
        if !changed.is_empty() || is_other || !self.on_disk {
            self.save();
        }
        changed
    }

    /// Tells the session and the status line how things stand.
    fn tell(&self) {
        let desired = self.saved.as_ref().map(|saved| &saved.desired);
        let units = self.host.report();
        let mut problems = self.host.problems();
        problems.extend(self.index.problems.clone());
        problems.extend(self.away.clone().map(|why| ("systemd".to_owned(), why)));
        let twin = self.twin.borrow().clone();
        problems.extend(twin.map(|why| ("machine id".to_owned(), why)));
        problems.extend(
            self.disk
                .clone()
                .map(|why| ("state directory".to_owned(), why)),
        );
        let standing = AgentStatus {
            wanted: desired.map_or(0, BTreeMap::len),
            ready: units.map_or(0, |units| units.values().filter(|unit| unit.ready).count()),
            held: self.following.held().map(str::to_owned),
            problems: problems.clone(),
        };
        let held = self.following.held();
        problems.extend(held.map(|why| ("registry".to_owned(), why.to_owned())));
        let word = Outgoing {
            said: ReportBody {
                units: units.cloned(),
                problems,
                shuts_down: false,
            },
            is_moving: self.host.is_moving(),
        };
        self.word.send_if_modified(|told| replace(told, word));
        self.standing
            .send_if_modified(|told| replace(told, standing));
    }
}

fn replace<T: PartialEq>(told: &mut T, now: T) -> bool {
    let differs = *told != now;
    *told = now;
    differs
}
