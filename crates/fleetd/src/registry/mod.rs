//! The registry as the API, the units directory and the engine change it: whole units, guarded commits.
//!
//! Every change reads, decides with a pure function, and commits guarded by what it read; when somebody else was
//! first it reads and decides again. A change is acknowledged only once the store has it.

mod batch;
pub(crate) mod history;
mod publisher;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_core::directory::Known;
use fleet_core::keys;
use fleet_core::machine::{METADATA_MAX, MachineId, Scheduling};
use fleet_core::record::{
    self, AcceptanceRecord, ClusterRecord, DestroyedRecord, MetadataRecord, Owner, Past,
    RecordError, UnitRecord,
};
use fleet_core::rollout::{self, Order, OrderError};
use fleet_core::submission::{self, NotLaunchable, Outdated, Submission, Submitted, may_become};
use fleet_core::trust::{self, Footing, Identity, Judgement, Memory, NotAcceptable, Trust, judge};
use fleet_core::unit::{Content, Parsed, TargetState, UnitName};
use tokio::sync::watch;

use self::batch::{Found, Waiting};
use self::history::{History, readable, remember, retire};
pub use self::publisher::{AsOwner, check};
use crate::store::{self, Entry, Guard, Snapshot, Store, StoreError, Write};

/// How often a change is decided again because somebody else was first. Each loss means that another change
/// landed, so this bounds a queue of that many writers to one unit.
const ATTEMPTS: usize = 16;

/// How many units there may be: twice as many as were measured on one host (`docs/crowded.md`).
pub const UNITS_MAX: usize = 2_000;

/// How long a change waits for the agent to have read the registry, after a start: less than an answer may take.
const HEARD: Duration = Duration::from_secs(2);

/// How many guards a commit may have; see [`Guard`].
const GUARDS_MAX: usize = 128;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is there cannot be read, so it cannot be changed either; it can be destroyed.
    #[error("unit {0}: {1}")]
    Record(UnitName, RecordError),
    /// A newer version set it, and may have set more than this one can keep.
    #[error("what is set for machine {0} cannot be changed here: {1}")]
    Metadata(MachineId, RecordError),
    /// This machine does not follow it, so it changes nothing in it.
    #[error("nothing was changed: {0}")]
    Held(String),
    /// It cannot be accepted.
    #[error(transparent)]
    NotAcceptable(#[from] NotAcceptable),
    /// It cannot have the target state that is asked for.
    #[error(transparent)]
    NotLaunchable(#[from] NotLaunchable),
    /// The update was made from an older revision.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// It cannot be ordered as things stand.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// As many as there may be.
    #[error(
        "the registry has {UNITS_MAX} units, as many as it may have; destroy some that nobody needs (fleetctl list-unit-files)"
    )]
    TooManyUnits,
    /// More keys than a machine may have. A removed one counts: it hides the one in fleet.conf.
    #[error(
        "machine {0} would have more than {METADATA_MAX} keys of metadata set or removed; fewer keys, please"
    )]
    TooMuchMetadata(MachineId),
    /// Nothing was ever heard of that machine.
    #[error("machine {id} is not known{}", suggestion(.similar.as_ref()))]
    NoMachine {
        /// The id that was asked for.
        id: MachineId,
        /// The one that may have been meant.
        similar: Option<MachineId>,
    },
}

fn suggestion(similar: Option<&MachineId>) -> String {
    similar.map_or_else(
        || "; fleetctl list-machines shows those that are".to_owned(),
        |similar| format!("; did you mean {similar}?"),
    )
}

/// The result of every change.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// A unit's record and where it stands in the store's history.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: UnitRecord,
    /// The store revision that made the unit; older units win conflicts.
    pub created: u64,
    modified: u64,
}

/// The registry.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    /// From the agent: how it stands with this machine.
    trust: watch::Receiver<Trust>,
    /// Milliseconds since 1970.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Changes that are made together, as soon as those before them are.
    waiting: Arc<Waiting>,
}

impl Registry {
    /// A registry in that store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            trust: watch::channel(Trust::default()).1,
            clock: Arc::new(now),
            waiting: Arc::default(),
        }
    }

    /// A registry that takes the time from `clock`, in milliseconds since 1970.
    pub fn with_clock(self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let clock = Arc::new(clock);
        let waiting = Arc::default();
        Self {
            clock,
            waiting,
            ..self
        }
    }

    /// A registry in which nothing is changed while this machine's agent holds it.
    pub fn trusting(self, trust: watch::Receiver<Trust>) -> Self {
        let waiting = Arc::default();
        Self {
            trust,
            waiting,
            ..self
        }
    }

    /// How it stands with this machine.
    pub fn trust(&self) -> Trust {
        self.trust.borrow().clone()
    }

    /// Whether this machine may change anything in it. Answers what fences a change against a registry that is wiped in
    /// this moment.
    pub async fn may_change(&self) -> Result<Option<Guard>> {
        let mut trust = self.trust.clone();
        let heard = trust.wait_for(|trust| trust.footing != Footing::Unheard);
        let trust = match tokio::time::timeout(HEARD, heard).await {
            Ok(Ok(trust)) => trust.clone(),
            Ok(Err(_)) => self.trust(),
            Err(_) => {
                let text = "this machine has not read the registry yet, and does not know whether to follow it";
                return Err(RegistryError::Held(text.to_owned()));
            }
        };
        if let Some(held) = trust.held() {
            return Err(RegistryError::Held(held.reason.clone()));
        }
        if trust.away {
            // It may be back before the agent knows, and as another one.
            let identity = identity(&*self.store).await?;
            if let Judgement::Hold { reason, .. } = judge(&trust.memory, &identity) {
                return Err(RegistryError::Held(reason));
            }
        }
        Ok(match &trust.memory {
            Memory::Of(seen) if seen.made != 0 => {
                Some(Guard::CreatedAt(keys::CLUSTER.to_owned(), seen.made))
            }
            _ => None,
        })
    }

    /// Accepts the registry as it is for the machines of this one's cluster; see [`trust::accept`].
    pub async fn accept(&self, shown: &str, by: &str, new_id: &str) -> Result<AcceptanceRecord> {
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.list(&Identity::KEYS).await?;
            let identity = identity_of(&snapshot);
            let now = (self.clock)();
            let record = trust::accept(&self.trust(), &identity, shown, by, now, new_id)?;
            let guards = Identity::KEYS
                .iter()
                .map(|key| match snapshot.entries.get(*key) {
                    Some(entry) => Guard::Unmodified((*key).to_owned(), entry.modified),
                    None => Guard::Absent((*key).to_owned()),
                });
            let put = |key: &str, value| Write::Put {
                key: key.to_owned(),
                value,
                lease: None,
            };
            let mut writes = vec![put(keys::ACCEPTANCE, record::encode(&record))];
            if !snapshot.entries.contains_key(keys::CLUSTER) {
                let id = record.cluster.clone();
                writes.push(put(keys::CLUSTER, record::encode(&ClusterRecord { id })));
            }
            match self.store.commit(guards.collect(), writes).await {
                Ok(_) => return Ok(record),
                Err(StoreError::Refused) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Refused.into())
    }

    /// The store itself, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads one unit.
    pub async fn unit(&self, name: &UnitName) -> Result<Option<Stored>> {
        let key = keys::unit(name);
        let snapshot = self.store.list(&[&key]).await?;
        snapshot
            .entries
            .get(&key)
            .map(|entry| stored(name, entry))
            .transpose()
    }

    /// Submits a unit file. `target` none keeps the target state (`inactive` for a new unit).
    pub async fn submit(
        &self,
        name: &UnitName,
        content: Content,
        owner: Owner,
        target: Option<TargetState>,
    ) -> Result<Submission> {
        self.submit_over(name, content, owner, target, None).await
    }

    /// Submits a unit file that replaces that revision, and no newer one. `None` replaces any.
    pub async fn submit_over(
        &self,
        name: &UnitName,
        content: Content,
        owner: Owner,
        target: Option<TargetState>,
        replaces: Option<u64>,
    ) -> Result<Submission> {
        let (unit, clock) = (name.clone(), self.clock.clone());
        let decide = move |found: &Found<'_>| {
            let existing = found.unit()?;
            if let Some(replaces) = replaces {
                let existing = existing.as_ref().map(|it| &it.record);
                submission::replaces_newest(&unit, existing, replaces)?;
            }
            let submitted = Submitted {
                content: content.clone(),
                owner: owner.clone(),
                target,
                now: clock(),
            };
            let submission =
                submission::submit(&unit, existing.as_ref().map(|it| &it.record), submitted);
            let writes = match &submission {
                Submission::Created(record) => {
                    let seen = remember(&unit, &found.seen(), &History::new(), Some(record), None);
                    seen.into_iter().chain([put(&unit, record)]).collect()
                }
                Submission::Adopted(record) => vec![put(&unit, record)],
                Submission::Updated { record, retired } => {
                    let history = found.history();
                    let mut writes = retire(&unit, retired, &history);
                    let seen = remember(&unit, &found.seen(), &history, Some(record), None);
                    writes.extend(seen);
                    writes.push(put(&unit, record));
                    writes
                }
                Submission::Unchanged => Vec::new(),
            };
            Ok((submission, writes))
        };
        self.change(name, decide).await
    }

    /// Sets the target state of a unit, if it may have that one. Answers whether there is such a unit.
    pub async fn set_target(&self, name: &UnitName, target: TargetState) -> Result<bool> {
        let (unit, clock) = (name.clone(), self.clock.clone());
        let decide = move |found: &Found<'_>| {
            let Some(Stored { record, .. }) = found.unit()? else {
                return Ok((false, Vec::new()));
            };
            let parsed = Parsed::parse(unit.clone(), &record.newest().content);
            may_become(&unit, parsed.options.global, target)?;
            if record.target == target {
                return Ok((true, Vec::new()));
            }
            let record = submission::retarget(&record, target, clock());
            Ok((true, vec![put(&unit, &record)]))
        };
        self.change(name, decide).await
    }

    /// Takes back one owner's wish for a unit; with the last owner the unit is destroyed. Answers whether it was.
    pub async fn disown(&self, name: &UnitName, owner: &Owner) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let key = keys::unit(name);
            let snapshot = self.store.list(&[&key, &keys::seen(name)]).await?;
            let Some(entry) = snapshot.entries.get(&key) else {
                return Ok(false);
            };
            let existing = stored(name, entry)?;
            let left = submission::disown(&existing.record, owner);
            let writes = match &left {
                Some(record) if *record == existing.record => return Ok(false),
                Some(record) => vec![put(name, record)],
                None => destroy(name, &snapshot, (self.clock)()),
            };
            if self.commit(guard(name, Some(&existing)), writes).await? {
                return Ok(left.is_none());
            }
        }
        Err(StoreError::Refused.into())
    }

    /// Destroys a unit, whoever owns it and whether or not its record can be read. Answers whether it existed.
    pub async fn destroy(&self, name: &UnitName) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let key = keys::unit(name);
            let snapshot = self.store.list(&[&key, &keys::seen(name)]).await?;
            let Some(entry) = snapshot.entries.get(&key) else {
                return Ok(false);
            };
            let guards = vec![Guard::Unmodified(key, entry.modified)];
            let writes = destroy(name, &snapshot, (self.clock)());
            if self.commit(guards, writes).await? {
                return Ok(true);
            }
        }
        Err(StoreError::Refused.into())
    }

    /// Follows an order about a unit's rollout; see [`rollout::follow`]. Answers none if there is no such unit.
    pub async fn order(
        &self,
        name: &UnitName,
        order: Order,
        by: &str,
    ) -> Result<Option<UnitRecord>> {
        for _ in 0..ATTEMPTS {
            let (Some(existing), history) = self.unit_with_history(name).await? else {
                return Ok(None);
            };
            let past = readable(&history);
            let next = rollout::follow(order, name, &existing.record, &past, by, (self.clock)())?;
            let mut writes = retire(name, &next.retired, &history);
            writes.push(put(name, &next.record));
            if self.commit(guard(name, Some(&existing)), writes).await? {
                return Ok(Some(next.record));
            }
        }
        Err(StoreError::Refused.into())
    }

    /// A unit with its older revisions by number, or why one cannot be read.
    pub async fn with_history(
        &self,
        name: &UnitName,
    ) -> Result<Option<(Stored, BTreeMap<u64, Result<Past, String>>)>> {
        let (existing, history) = self.unit_with_history(name).await?;
        Ok(existing.map(|existing| (existing, history)))
    }

    /// Says what may start on a machine. Answers what might before. A machine that is offline counts as known.
    pub async fn set_scheduling(
        &self,
        machine: &MachineId,
        scheduling: Scheduling,
    ) -> Result<Scheduling> {
        let key = keys::metadata(machine);
        for _ in 0..ATTEMPTS {
            let snapshot = self
                .store
                .list(&[keys::MACHINES, keys::KNOWN, &key])
                .await?;
            let known = known_machines(&snapshot);
            // Metadata may be set for a machine that is yet to come, and what was said of it is taken back.
            if !known.contains(machine) && !snapshot.entries.contains_key(&key) {
                return Err(RegistryError::NoMachine {
                    id: machine.clone(),
                    similar: similar(machine, &known),
                });
            }
            let (guard, mut record) = metadata_of(machine, &snapshot)?;
            let entry = snapshot.entries.get(&key);
            let is_readable =
                entry.is_none_or(|it| record::decode::<MetadataRecord>(&it.value).is_ok());
            let before = std::mem::replace(&mut record.scheduling, scheduling);
            if before == scheduling && is_readable {
                return Ok(before);
            }
            let write = Write::Put {
                key: key.clone(),
                value: record::encode(&record),
                lease: None,
            };
            if self.commit(vec![guard], vec![write]).await? {
                return Ok(before);
            }
        }
        Err(StoreError::Refused.into())
    }

    /// Refuses machines that were never heard of: a mistyped id would make metadata that no machine has.
    pub async fn must_know<'a>(&self, machines: impl Iterator<Item = &'a MachineId>) -> Result<()> {
        let machines: BTreeSet<&MachineId> = machines.collect();
        let set: Vec<String> = machines.iter().map(|id| keys::metadata(id)).collect();
        let prefixes = [keys::MACHINES, keys::KNOWN].into_iter();
        let prefixes: Vec<&str> = prefixes.chain(set.iter().map(String::as_str)).collect();
        let snapshot = self.store.list(&prefixes).await?;
        let known = known_machines(&snapshot);
        let unknown = machines.into_iter().zip(&set).find(|(machine, set)| {
            !known.contains(*machine) && !snapshot.entries.contains_key(*set)
        });
        match unknown {
            Some((machine, _)) => Err(RegistryError::NoMachine {
                id: machine.clone(),
                similar: similar(machine, &known),
            }),
            None => Ok(()),
        }
    }

    /// Sets (`Some`) and removes (`None`) metadata of machines, all of it or nothing.
    pub async fn set_metadata(
        &self,
        changes: &[(MachineId, String, Option<String>)],
    ) -> Result<()> {
        let keys: Vec<String> = changes
            .iter()
            .map(|(machine, ..)| keys::metadata(machine))
            .collect();
        for _ in 0..ATTEMPTS {
            let prefixes: Vec<&str> = keys.iter().map(String::as_str).collect();
            let snapshot = self.store.list(&prefixes).await?;
            let (guards, writes) = metadata_writes(changes, &snapshot)?;
            if self.commit(guards, writes).await? {
                return Ok(());
            }
        }
        Err(StoreError::Refused.into())
    }

    /// Answers false if a guard did not hold.
    async fn commit(&self, mut guards: Vec<Guard>, writes: Vec<Write>) -> Result<bool> {
        let fence = self.may_change().await?;
        // Where a commit is as large as it may be, the agent's word of a moment ago has to do.
        if guards.len() < GUARDS_MAX {
            guards.extend(fence);
        }
        let (first, writes) = portions(guards.len(), writes);
        for writes in [first, writes]
            .into_iter()
            .filter(|writes| !writes.is_empty())
        {
            match self.store.commit(guards.clone(), writes).await {
                Ok(_) => {}
                Err(StoreError::Refused) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// What a units directory has to know of a unit. `None` if there never was one, as far as is remembered.
    pub async fn known(&self, name: &UnitName) -> Result<Option<Known>> {
        let key = keys::unit(name);
        let snapshot = self.store.list(&[&key, &keys::seen(name)]).await?;
        let seen = history::seen(&snapshot, name);
        let Some(entry) = snapshot.entries.get(&key) else {
            return Ok(seen.destroyed.map(|_| Known::destroyed(&seen)));
        };
        let record = stored(name, entry)?.record;
        let history = readable(&history::of(&snapshot, name));
        Ok(Some(Known::of(&record, &history, &seen)))
    }

    async fn unit_with_history(&self, name: &UnitName) -> Result<(Option<Stored>, History)> {
        let (key, prefix) = (keys::unit(name), keys::history_of(name));
        let snapshot = self.store.list(&[&key, &prefix]).await?;
        let existing = snapshot.entries.get(&key);
        let existing = existing.map(|entry| stored(name, entry)).transpose()?;
        Ok((existing, history::of(&snapshot, name)))
    }
}

/// Splits what is too large for one commit: an update on top of the rollout of a large file writes it three times. Older
/// revisions come first. They are guarded by the unit's key like the rest, and one that is also the candidate is written
/// again when its time comes.
fn portions(guards: usize, writes: Vec<Write>) -> (Vec<Write>, Vec<Write>) {
    if store::fits(guards, writes.iter()) {
        return (Vec::new(), writes);
    }
    writes
        .into_iter()
        .partition(|write| matches!(write, Write::Put { key, .. } if keys::past_of(key).is_some()))
}

/// The machines that are here, or were.
fn known_machines(snapshot: &Snapshot) -> BTreeSet<MachineId> {
    let ids = snapshot.entries.keys().filter_map(|key| {
        keys::machine_of(keys::MACHINES, key).or_else(|| keys::machine_of(keys::KNOWN, key))
    });
    ids.collect()
}

/// The machine whose id is that one but for a few digits.
fn similar(asked: &MachineId, known: &BTreeSet<MachineId>) -> Option<MachineId> {
    const SLIPS: usize = 4;
    let distance = |id: &MachineId| strsim::osa_distance(asked.as_str(), id.as_str());
    let nearest = known.iter().min_by_key(|id| distance(id))?;
    (distance(nearest) <= SLIPS).then(|| nearest.clone())
}

fn stored(name: &UnitName, entry: &Entry) -> Result<Stored> {
    let record =
        record::decode(&entry.value).map_err(|error| RegistryError::Record(name.clone(), error))?;
    Ok(Stored {
        record,
        created: entry.created,
        modified: entry.modified,
    })
}

fn guard(name: &UnitName, existing: Option<&Stored>) -> Vec<Guard> {
    let key = keys::unit(name);
    vec![match existing {
        Some(stored) => Guard::Unmodified(key, stored.modified),
        None => Guard::Absent(key),
    }]
}

fn put(name: &UnitName, record: &UnitRecord) -> Write {
    Write::Put {
        key: keys::unit(name),
        value: record::encode(record),
        lease: None,
    }
}

/// Removes a unit and its history. What contents it had stays, so that no old copy of its file brings it back.
fn destroy(name: &UnitName, snapshot: &Snapshot, now: u64) -> Vec<Write> {
    let entry = snapshot.entries.get(&keys::unit(name));
    let record = entry.and_then(|entry| record::decode::<UnitRecord>(&entry.value).ok());
    let (seen, history) = (history::seen(snapshot, name), history::of(snapshot, name));
    let seen = remember(name, &seen, &history, record.as_ref(), Some(now));
    let writes = [
        Write::Delete(keys::unit(name)),
        Write::DeletePrefix(keys::history_of(name)),
        Write::Put {
            key: keys::DESTROYED.to_owned(),
            value: record::encode(&DestroyedRecord { unit: name.clone() }),
            lease: None,
        },
    ];
    writes.into_iter().chain(seen).collect()
}

fn metadata_writes(
    changes: &[(MachineId, String, Option<String>)],
    snapshot: &Snapshot,
) -> Result<(Vec<Guard>, Vec<Write>)> {
    let mut machines: Vec<&MachineId> = changes.iter().map(|(machine, ..)| machine).collect();
    machines.sort();
    machines.dedup();
    let mut guards = Vec::new();
    let mut writes = Vec::new();
    for machine in machines {
        let key = keys::metadata(machine);
        let (guard, mut record) = metadata_of(machine, snapshot)?;
        for (_, name, value) in changes.iter().filter(|(of, ..)| of == machine) {
            record.set.insert(name.clone(), value.clone());
        }
        if record.set.len() > METADATA_MAX {
            return Err(RegistryError::TooMuchMetadata(machine.clone()));
        }
        guards.push(guard);
        writes.push(Write::Put {
            key,
            value: record::encode(&record),
            lease: None,
        });
    }
    Ok((guards, writes))
}

/// What is set for a machine, and the guard of a write that changes it.
fn metadata_of(machine: &MachineId, snapshot: &Snapshot) -> Result<(Guard, MetadataRecord)> {
    let key = keys::metadata(machine);
    let Some(entry) = snapshot.entries.get(&key) else {
        return Ok((Guard::Absent(key), MetadataRecord::default()));
    };
    let record = match record::decode(&entry.value) {
        Ok(record) => record,
        // What is damaged is overwritten: it is only labels, and the person who sets one wants it set.
        Err(RecordError::Damaged(_)) => MetadataRecord::default(),
        Err(error) => return Err(RegistryError::Metadata(machine.clone(), error)),
    };
    Ok((Guard::Unmodified(key, entry.modified), record))
}

/// What tells this registry from another, read now.
pub(crate) async fn identity(store: &dyn Store) -> Result<Identity, StoreError> {
    Ok(identity_of(&store.list(&Identity::KEYS).await?))
}

fn identity_of(snapshot: &Snapshot) -> Identity {
    let mut identity = Identity {
        revision: snapshot.revision,
        ..Identity::default()
    };
    for (key, entry) in &snapshot.entries {
        // What cannot be read stands in it as that.
        let _ = identity.take(key, Some((&*entry.value, entry.created, entry.modified)));
    }
    identity
}

/// A new cluster id: 32 random hexadecimal digits.
pub(crate) fn random_id() -> String {
    let mut bytes = [0; 16];
    // The kernel's generator does not fail once the machine has booted; two clusters must never share an id.
    getrandom::fill(&mut bytes).expect("the kernel's random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
