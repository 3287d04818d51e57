//! The registry as the API, the units directory and the engine change it: whole units, guarded
//! commits.
//!
//! Every change reads, decides with a pure function, and commits guarded by what it read. If
//! another change came first, it reads and decides again. `Registry::retry` does so for one change,
//! `batch` for many changes of units in one commit. A change is acknowledged only once the store
//! has it.

mod acceptance;
mod batch;
pub(crate) mod history;
mod machines;
mod publisher;
mod units;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_core::keys;
use fleet_core::machine::{METADATA_MAX, MachineId};
use fleet_core::record::RecordError;
use fleet_core::rollout::OrderError;
use fleet_core::submission::{NotLaunchable, Outdated};
use fleet_core::trust::{Footing, Identity, Judgement, Memory, NotAcceptable, Trust, judge};
use fleet_core::unit::UnitName;
use tokio::sync::watch;

use self::batch::Waiting;
pub use self::publisher::{AsOwner, check};
pub use self::units::{Stored, UNITS_MAX};
use crate::store::{self, Guard, Snapshot, Store, StoreError, Write};

/// The number of times that a change is decided before it fails. Each repetition means that another
/// change landed, so this bounds a queue of that many writers to one unit.
const ATTEMPTS: usize = 16;

/// How long a change waits after a start until the agent has read the registry. It is less than an
/// answer may take.
const HEARD: Duration = Duration::from_secs(2);

/// The number of guards that a commit may have; see [`Guard`].
const GUARDS_MAX: usize = 128;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store did not make the change.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The unit cannot be read, so it cannot be changed. It can be destroyed.
    #[error("unit {0}: {1}")]
    Record(UnitName, RecordError),
    /// A newer version wrote the metadata, perhaps with more than this version can keep.
    #[error("what is set for machine {0} cannot be changed here: {1}")]
    Metadata(MachineId, RecordError),
    /// This machine does not follow the registry, so it changes nothing in it.
    #[error("nothing was changed: {0}")]
    Held(String),
    /// The registry cannot be accepted.
    #[error(transparent)]
    NotAcceptable(#[from] NotAcceptable),
    /// The unit cannot have the requested target state.
    #[error(transparent)]
    NotLaunchable(#[from] NotLaunchable),
    /// The update was made from an older revision.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// The order is not possible in the present state.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The registry has the maximum number of units.
    #[error(
        "the registry has {UNITS_MAX} units, the maximum; destroy units that are no longer needed (fleetctl list-unit-files)"
    )]
    TooManyUnits,
    /// The machine would have too many keys. A removed key counts, because it hides the one in
    /// fleet.conf.
    #[error(
        "machine {0} would have more than {METADATA_MAX} keys of metadata set or removed; use fewer keys"
    )]
    TooMuchMetadata(MachineId),
    /// The machine never joined.
    #[error("machine {id} is not known{}", suggestion(.similar.as_ref()))]
    NoMachine {
        /// The requested id.
        id: MachineId,
        /// A known id that may have been meant.
        similar: Option<MachineId>,
    },
}

fn suggestion(similar: Option<&MachineId>) -> String {
    similar.map_or_else(
        || "; fleetctl list-machines shows the known ones".to_owned(),
        |similar| format!("; did you mean {similar}?"),
    )
}

/// The result of every change.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// The registry.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    /// The agent's present view: whether this machine follows the registry.
    trust: watch::Receiver<Trust>,
    /// Milliseconds since 1970.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Changes that are made together, as soon as those before them are done.
    waiting: Arc<Waiting>,
}

impl Registry {
    /// Returns the registry in that store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            trust: watch::channel(Trust::default()).1,
            clock: Arc::new(now),
            waiting: Arc::default(),
        }
    }

    /// Returns the registry with that clock, in milliseconds since 1970.
    pub fn with_clock(self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let clock = Arc::new(clock);
        let waiting = Arc::default();
        Self {
            clock,
            waiting,
            ..self
        }
    }

    /// Returns the registry, which refuses changes while this machine's agent holds it.
    pub fn trusting(self, trust: watch::Receiver<Trust>) -> Self {
        let waiting = Arc::default();
        Self {
            trust,
            waiting,
            ..self
        }
    }

    /// Returns whether this machine follows the registry.
    pub fn trust(&self) -> Trust {
        self.trust.borrow().clone()
    }

    /// Checks that this machine may change the registry. Returns a guard that fails a commit if the
    /// registry is wiped meanwhile.
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
            // The registry may return before the agent notices, and be another one.
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

    /// Returns the store itself, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads these prefixes, decides, and commits. Repeats this while another change comes first.
    async fn retry<T: Send>(
        &self,
        prefixes: &[&str],
        fence: Fence,
        mut decide: impl FnMut(&Snapshot) -> Result<(T, Wanted)> + Send,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.list(prefixes).await?;
            let (decided, wanted) = decide(&snapshot)?;
            if wanted.writes.is_empty() || self.commit(fence, wanted).await? {
                return Ok(decided);
            }
        }
        Err(StoreError::Refused.into())
    }

    /// Commits, and returns false if a guard did not hold.
    async fn commit(&self, fence: Fence, wanted: Wanted) -> Result<bool> {
        let Wanted { mut guards, writes } = wanted;
        if fence == Fence::Trust {
            let fence = self.may_change().await?;
            // A commit of full size has no room for this guard, so the agent's recent view must do.
            if guards.len() < GUARDS_MAX {
                guards.extend(fence);
            }
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
}

/// Splits writes that are too large for one commit. An update on top of the rollout of a large file
/// writes that file three times. Older revisions come first. The unit's key guards them like the
/// rest. A revision that is also the candidate is written again when it is retired.
fn portions(guards: usize, writes: Vec<Write>) -> (Vec<Write>, Vec<Write>) {
    if store::fits(guards, writes.iter()) {
        return (Vec::new(), writes);
    }
    writes
        .into_iter()
        .partition(|write| matches!(write, Write::Put { key, .. } if keys::past_of(key).is_some()))
}

/// The writes of a change, and the guards under which they may land.
#[derive(Debug, Default)]
struct Wanted {
    guards: Vec<Guard>,
    writes: Vec<Write>,
}

/// A guard of a change in addition to its own guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    /// A registry that this machine holds is not changed.
    Trust,
    /// An acceptance changes a registry that is held.
    None,
}

/// Reads what distinguishes this registry from another one.
pub(crate) async fn identity(store: &dyn Store) -> Result<Identity, StoreError> {
    Ok(identity_of(&store.list(&Identity::KEYS).await?))
}

fn identity_of(snapshot: &Snapshot) -> Identity {
    let mut identity = Identity {
        revision: snapshot.revision,
        ..Identity::default()
    };
    for (key, entry) in &snapshot.entries {
        // A value that cannot be read is part of the identity as unreadable.
        let _ = identity.take(key, Some((&*entry.value, entry.created, entry.modified)));
    }
    identity
}

/// Returns a new cluster id: 32 random hexadecimal digits.
pub(crate) fn random_id() -> String {
    let mut bytes = [0; 16];
    // The kernel's generator does not fail once the machine has booted. Two clusters must never
    // share an id.
    getrandom::fill(&mut bytes).expect("the kernel's random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
