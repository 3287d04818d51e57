//! The agent: makes this machine's systemd agree with the registry, and tells the registry how that went.
//!
//! ```text
//!   registry --watch--> Index --desired--> plan --tasks--> systemd
//!                         |                 ^                 |
//!                    desired.json           +---- signals ----+--> report --> registry
//! ```
//!
//! The loop is level-triggered: an event only means "look again". While the registry is away, or held, the desired
//! state of before stands: from memory, or after a restart from the state directory. Without either, nothing is
//! touched at all.

mod host;
mod index;
mod marks;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::machine::MachineId;
use fleet_core::plan::Desired;
use fleet_core::record::{MachineRecord, MachineReport};
use fleet_core::trust::{Seen, Verdict, judge};
use fleet_core::unit::UnitName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::host::Host;
use self::index::Index;
use self::marks::Marks;
use self::session::Session;
use crate::atomic_file;
use crate::backoff::Backoff;
use crate::health::Heart;
use crate::mirror::{self, Event};
use crate::store::Store;
use crate::systemd::{Dirty, Systemd};

/// What an agent is made of.
pub struct Config {
    /// The machine it is for.
    pub me: MachineId,
    /// What it says of the machine.
    pub presence: MachineRecord,
    /// How long the machine counts as live without a word (`agent_ttl`).
    pub ttl: Duration,
    /// The desired state is kept here, for a start without the registry.
    pub desired_file: PathBuf,
    /// What was started is kept here until the next boot; none keeps it in memory only.
    pub marks_file: Option<PathBuf>,
}

/// What the agent shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many units this machine should have.
    pub wanted: usize,
    /// How many of them are ready.
    pub ready: usize,
    /// Why the registry is not followed just now.
    pub held: Option<String>,
}

/// What is kept on disk: the last desired state, and the registry it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    seen: Seen,
    desired: BTreeMap<UnitName, Desired>,
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
    /// Why the registry is not followed.
    held: Option<String>,
    /// What is wrong with the state directory.
    disk: Option<String>,
    report: watch::Sender<MachineReport>,
    standing: watch::Sender<Standing>,
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
        Self {
            index: Index::new(config.me.clone(), config.presence.metadata.clone()),
            host: Host::new(systemd.clone(), marks),
            config,
            store,
            systemd,
            heart,
            saved: None,
            held: None,
            disk: None,
            report: watch::Sender::default(),
            standing: watch::Sender::default(),
        }
    }

    /// Follows how the agent stands.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Runs until it is dropped; that touches no unit. `directory`: the problems of the units directory.
    pub async fn run(mut self, directory: watch::Receiver<BTreeMap<String, String>>) {
        let session = Session {
            store: self.store.clone(),
            me: self.config.me.clone(),
            presence: self.config.presence.clone(),
            ttl: self.config.ttl,
            report: self.report.subscribe(),
            directory,
        };
        tokio::join!(session.run(), self.follow());
    }

    async fn follow(&mut self) {
        self.load();
        let backoff = Backoff::new(self.config.me.as_str());
        let prefixes = index::prefixes(&self.config.me);
        let mut events = mirror::follow(self.store.clone(), prefixes, backoff.clone());
        let systemd = self.systemd.clone();
        let mut retry_after = backoff;
        let mut retry_at = None;
        loop {
            let dirty = tokio::select! {
                biased;
                event = events.recv() => {
                    let Some(event) = event else { return };
                    let mut anew = self.take(event);
                    // A burst of commits is one change of the desired state.
                    while let Ok(event) = events.try_recv() {
                        anew |= self.take(event);
                    }
                    if !anew {
                        self.tell();
                        continue;
                    }
                    self.adopt()
                }
                dirty = systemd.changed() => dirty,
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => Dirty::All,
            };
            let _busy = self.heart.busy();
            let desired = self.saved.as_ref().map(|saved| &saved.desired);
            let result = self.host.converge(desired, dirty).await;
            if let Err(error) = &result {
                tracing::warn!(%error, "systemd does not answer; units run on, and are looked at again");
            }
            retry_at = if result.is_err() || self.host.wants_retry() || self.disk.is_some() {
                Some(Instant::now() + retry_after.wait())
            } else {
                retry_after.reset();
                None
            };
            if self.disk.is_some() {
                self.save();
            }
            self.tell();
        }
    }

    /// Takes an event into the index. Answers whether the desired state may have changed.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Reset(snapshot) => self.index.reset(snapshot),
            Event::Changed(batch) => self.index.apply(batch),
            Event::Away(error) => {
                tracing::warn!(%error, "the registry is away; units run on as they are");
                self.held = Some(error.to_string());
                return false;
            }
        }
        let seen = self.saved.as_ref().map(|saved| &saved.seen);
        match judge(seen, self.index.cluster.as_deref(), self.index.revision) {
            Verdict::Obey(seen) => {
                if self.held.take().is_some() {
                    tracing::info!(cluster = %seen.cluster, "following the registry");
                }
                let desired = self.saved.take().map(|saved| saved.desired);
                self.saved = Some(Saved {
                    seen,
                    desired: desired.unwrap_or_default(),
                });
                true
            }
            Verdict::Hold { reason, seen } => {
                if self.held.as_ref() != Some(&reason) {
                    tracing::warn!("{reason}");
                }
                self.held = Some(reason);
                if let (Some(saved), Some(seen)) = (&mut self.saved, seen)
                    && saved.seen != seen
                {
                    saved.seen = seen;
                    self.save();
                }
                false
            }
        }
    }

    /// Makes the index's desired state this machine's. Answers the units that are to be looked at.
    fn adopt(&mut self) -> Dirty {
        let Some(saved) = self.saved.as_mut().filter(|_| self.held.is_none()) else {
            // Also where it was held only after it was obeyed: the index is the held registry's by now.
            return Dirty::Units(Default::default());
        };
        let desired = self.index.desired(&saved.desired);
        let changed = names_of_change(&saved.desired, &desired);
        if !changed.is_empty() {
            saved.desired = desired;
            self.save();
        }
        Dirty::Units(changed)
    }

    fn load(&mut self) {
        match atomic_file::load::<Saved>(&self.config.desired_file) {
            Ok(saved) => {
                if let Some(saved) = &saved {
                    tracing::info!(units = saved.desired.len(), cluster = %saved.seen.cluster, "desired state read from disk");
                }
                self.saved = saved;
            }
            Err(error) => {
                let text = format!(
                    "{error}: starting without it; units run on, and follow the registry once it answers"
                );
                tracing::error!("{text}");
                self.disk = Some(text);
            }
        }
    }

    /// On disk before it is acted on, so that no reboot brings back what was stopped. A disk that does not take it
    /// stops nothing: the machine follows the registry, says so, and tries again.
    fn save(&mut self) {
        let Some(saved) = &self.saved else { return };
        self.disk = match atomic_file::save(&self.config.desired_file, saved) {
            Ok(()) => None,
            Err(error) => {
                let text = format!(
                    "{}: {error}: this machine follows the registry, but would not know its newest state after a reboot without it; free some space",
                    self.config.desired_file.display()
                );
                if self.disk.as_ref() != Some(&text) {
                    tracing::error!("{text}");
                }
                Some(text)
            }
        };
    }

    /// Tells the session and the status line how things stand.
    fn tell(&self) {
        let desired = self.saved.as_ref().map(|saved| &saved.desired);
        let units = self.host.report(desired);
        let standing = Standing {
            wanted: desired.map_or(0, BTreeMap::len),
            ready: units.values().filter(|unit| unit.ready).count(),
            held: self.held.clone(),
        };
        let mut problems: BTreeMap<String, String> = self
            .host
            .problems()
            .map(|(name, why)| (name.to_string(), why.clone()))
            .collect();
        problems.extend(self.index.problems.clone());
        problems.extend(self.held.clone().map(|why| ("registry".to_owned(), why)));
        problems.extend(
            self.disk
                .clone()
                .map(|why| ("state directory".to_owned(), why)),
        );
        let report = MachineReport { units, problems };
        self.report.send_if_modified(|told| replace(told, report));
        self.standing
            .send_if_modified(|told| replace(told, standing));
    }
}

fn replace<T: PartialEq>(told: &mut T, now: T) -> bool {
    let differs = *told != now;
    *told = now;
    differs
}

/// The units whose desired state differs, or is in one of the two only.
fn names_of_change(
    before: &BTreeMap<UnitName, Desired>,
    after: &BTreeMap<UnitName, Desired>,
) -> std::collections::BTreeSet<UnitName> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let new = after
        .iter()
        .filter(|(name, want)| before.get(*name) != Some(want));
    gone.chain(new.map(|(name, _)| name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use fleet_core::keys;
    use fleet_core::record::{self, ClusterRecord, Owner, Revision, TargetState, UnitRecord};

    use super::*;
    use crate::store::{Embedded, Entry, Snapshot};
    use crate::systemd::fake::Fake;

    /// A registry with that id and, launched, those units.
    fn registry(id: &str, revision: u64, units: &[&str]) -> Event {
        let entry = |value: Vec<u8>| Entry {
            value: value.into(),
            created: revision,
            modified: revision,
        };
        let cluster = ClusterRecord { id: id.to_owned() };
        let unit = UnitRecord {
            target: TargetState::Launched,
            stable: Revision {
                number: 1,
                at: 0,
                content: "[X-Fleet]\nGlobal=true\n".into(),
            },
            candidate: None,
            owners: [Owner::Api].into(),
        };
        let units = units.iter().map(|name| {
            let name = UnitName::parse(name).expect("valid");
            (keys::unit(&name), entry(record::encode(&unit)))
        });
        let mut entries: BTreeMap<String, Entry> = units.collect();
        entries.insert(keys::CLUSTER.to_owned(), entry(record::encode(&cluster)));
        Event::Reset(Snapshot { revision, entries })
    }

    fn agent(folder: &std::path::Path) -> Agent {
        let config = Config {
            me: MachineId::parse(&"a".repeat(32)).expect("valid"),
            presence: MachineRecord {
                primary_ip: String::new(),
                metadata: BTreeMap::new(),
                version: String::new(),
            },
            ttl: Duration::from_secs(30),
            desired_file: folder.join("desired.json"),
            marks_file: None,
        };
        Agent::new(
            config,
            Arc::new(Embedded::in_memory()),
            Arc::new(Fake::new()),
            Heart::default(),
        )
    }

    #[tokio::test]
    async fn what_was_obeyed_is_not_acted_on_once_the_registry_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut agent = agent(folder.path());
        assert!(agent.take(registry("one", 5, &["a.service"])));
        let first = agent.adopt();
        assert!(matches!(first, Dirty::Units(units) if units.len() == 1));

        assert!(agent.take(registry("one", 6, &["a.service", "b.service"])));
        assert!(!agent.take(registry("other", 7, &[])));
        assert_eq!(agent.adopt(), Dirty::Units(Default::default()));
        assert_eq!(agent.saved.expect("kept").desired.len(), 1);
    }
}
