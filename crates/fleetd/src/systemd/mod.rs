//! The seam to the machine's systemd: unit files in their directory, and the manager behind them.

mod changes;
pub mod dbus;
pub mod fake;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
pub use fleet_core::plan::Links;
pub use fleet_core::systemd::{Ended, JobResult, State};
use fleet_core::unit::{Content, UnitName};
use tokio::time::Instant;

/// Why systemd did not do what it was asked, by what the caller does about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SystemdError {
    /// The bus or PID 1 is not there just now (re-executing, bus restarted). Normal; look again
    /// later.
    #[error("systemd is not reachable: {0}")]
    Unavailable(String),
    /// systemd refused it for this unit. Report it with the unit; others go on.
    #[error("systemd refused: {0}")]
    Refused(String),
    /// The unit files' directory could not be read or written.
    #[error("{0}")]
    File(String),
    /// Not now, for this unit: too many jobs are pending. Try again later; others go on.
    #[error("{0}")]
    Busy(String),
}

/// The result of every call.
pub type Result<T, E = SystemdError> = std::result::Result<T, E>;

/// What costs a call for each unit, and is read only for units that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// `StateChangeTimestamp`, in milliseconds since 1970; 0 if its state never changed.
    pub since: u64,
    /// When it last became active, whatever the wall clock says; none if systemd does not tell. Of
    /// a unit that never was, it means nothing.
    pub active_since: Option<Instant>,
    /// `NRestarts` of a service, counted from the start or restart that fleet asked for last; 0 for
    /// other kinds.
    pub restarts: u32,
    /// `Result`; empty for kinds that have none.
    pub result: String,
    /// Which run of it this is, or was (`InvocationID`); empty if systemd has not started it since
    /// it loaded it. systemd drops a unit that is inactive again, unless another one refers to it:
    /// a oneshot that did its work looks as if it never ran. Who must know has to remember.
    pub run: String,
    /// Whether systemd skipped its last start since then, because a condition in its file was not
    /// met. systemd forgets that with the unit, which it keeps for fleet until the start after, or
    /// the unit's end.
    pub skipped: bool,
    /// Units that are up in a slice, whoever's they are; empty for other kinds.
    pub members: BTreeSet<String>,
}

impl Details {
    /// Whether systemd has started it since it loaded it.
    pub fn started(&self) -> bool {
        !self.run.is_empty()
    }
}

/// What of fleet's is on the machine's disk of one unit. Anybody may have changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// fleet's file.
    pub file: Option<Content>,
    /// Whether systemd's link leads to it.
    pub linked: bool,
}

/// Which units to look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// These.
    Units(BTreeSet<UnitName>),
    /// All: systemd read its configuration again. A unit in the same state has not changed
    /// otherwise, except these.
    Reloaded(BTreeSet<UnitName>),
    /// All: systemd or the bus was away.
    All,
}

/// The seam. Jobs are asked for, not waited for: what became of them is seen by looking again.
#[async_trait]
pub trait Systemd: Send + Sync {
    /// Waits until something may have changed since the last call, and says what. Safe to cancel:
    /// nothing is lost. Answers [`Dirty::All`] first.
    async fn changed(&self) -> Dirty;

    /// These units are about to be looked at: what changed of them before is told no more. Answers
    /// of which something did.
    fn looking(&self, names: &BTreeSet<UnitName>) -> BTreeSet<UnitName>;

    /// How the last job of the unit ended that fleet asked for, or that it saw pending; told once.
    /// `None` before that end.
    fn ended(&self, name: &UnitName) -> Option<Ended>;

    /// Stops telling about this unit, which is not fleet's any more.
    fn forget(&self, name: &UnitName);

    /// How often systemd has rebooted without the kernel, which ends units and keeps /run. 0 if it
    /// does not tell.
    async fn soft_reboots(&self) -> Result<u32>;

    /// fleet's unit files on this machine.
    async fn files(&self) -> Result<BTreeMap<UnitName, Content>>;

    /// What is there of one unit. A change of it is told as a change of the unit, whoever made it.
    async fn on_disk(&self, name: &UnitName) -> Result<OnDisk>;

    /// The state of each of these units, each in the answer; one that systemd does not know is
    /// `not-found`.
    async fn states(&self, names: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, State>>;

    /// More about one unit, of which [`states`](Self::states) just told `state`.
    async fn details(&self, name: &UnitName, state: &State) -> Result<Details>;

    /// Where a unit of this name that is not fleet's comes from: a file's path, or a sentence. None
    /// if the name is free, or fleet's own file is what systemd would use. `state`: what
    /// [`states`](Self::states) just told of it.
    async fn foreign(&self, name: &UnitName, state: &State) -> Result<Option<String>>;

    /// Puts a unit file into fleet's directory, whole or not at all.
    async fn write(&self, name: &UnitName, content: &Content) -> Result<()>;

    /// Makes systemd know a file of fleet's directory, at runtime. Refused if the name belongs to
    /// another's unit.
    async fn link(&self, name: &UnitName, links: Links) -> Result<()>;

    /// Undoes `link`, forgets a failure, and removes the file from fleet's directory. systemd keeps
    /// the unit in memory for as long as another one refers to it, until it reloads.
    async fn remove(&self, name: &UnitName) -> Result<()>;

    /// Makes systemd read all changed files (daemon-reload).
    async fn reload(&self) -> Result<()>;

    /// Returns whether the host is shutting down: its units stop then because PID 1 stops
    /// everything. `false` if systemd does not say.
    async fn is_shutting_down(&self) -> bool;

    /// Asks for a start job. Returns once systemd has taken the job; a bounded number runs at once.
    /// However often the unit has failed before, this start is none of those that systemd limits
    /// (`StartLimitBurst=`).
    async fn start(&self, name: &UnitName) -> Result<()>;

    /// Asks for a restart job, in the same way.
    async fn restart(&self, name: &UnitName) -> Result<()>;

    /// Asks for a stop job, in the same way. Refused if systemd has no such unit.
    async fn stop(&self, name: &UnitName) -> Result<()>;
}
