//! The units directory: unit files that somebody drops into a directory run on the whole fleet.
//!
//! ```text
//! inotify: look again ---> Scan ---> fleet_core::directory::decide ---> Publisher (the registry)
//!   and once a minute        ^                  ^        |
//!                        the directory   directory.json  +---> problems, notes
//! ```
//!
//! What to do is decided by [`fleet_core::directory`]; here it is noticed, read, done and
//! remembered. Every round starts from the files themselves, so a lost event costs at most a
//! minute, and a registry that is away costs nothing but time: what was not done is found undone in
//! the next round.

mod disk;
mod grace;
mod memory;
mod problems;
mod publisher;
mod source;
mod state;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::directory::{self, Action, Decision, Directory, Known, MARKER, Named, Published};
use fleet_core::machine::MachineId;
use fleet_core::unit::{Content, UnitName};
use futures_util::future::join_all;
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::{Instant, sleep, sleep_until};

use crate::backoff::Backoff;
use disk::{Disk, RECENT};
use grace::{GONE, Grace};
pub use memory::Memory;
use problems::Findings;
pub use publisher::{PublishError, Publisher};
use source::Source;

/// How long to wait after an event for those that come with it: a copy of fifty files is one round.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// How long the agent may take to hear of what was published, before its not having it means
/// anything.
const COMPARE: Duration = Duration::from_secs(2);

/// How often the directory is read without any event: for events that cannot come, such as those of
/// a file elsewhere that a link shows, or of a network file system. It asks the registry nothing.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait at most: a registry that is back should find changes soon.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The file of the state directory that remembers what was published.
const STATE_FILE: &str = "directory.json";

/// The newest content of every unit, as this machine's agent has heard of them. `None` before it
/// has.
pub type Newest = Option<Arc<BTreeMap<UnitName, Content>>>;

/// Says why a content may not be launched from a directory, such as `not global`.
pub type Check = fn(&UnitName, &Content) -> Result<(), String>;

/// What somebody must mend: a path and a text.
pub type Problems = BTreeMap<String, String>;

/// Keeps the registry in step with one units directory.
pub struct UnitsDir {
    directory: PathBuf,
    machine: MachineId,
    state_file: PathBuf,
    publisher: Arc<dyn Publisher>,
    check: Check,
    findings: Findings,
    source: Box<dyn Source>,
    /// What was published; an error while its file is damaged.
    published: Result<Published, String>,
    /// Whether that is on disk.
    saved: bool,
    /// Whether another machine published it, so that this one owns nothing of it yet.
    is_anothers: bool,
    /// The directory as it was when last nothing was left to do.
    settled: Option<Directory>,
    gone: Grace,
    retry: Backoff,
    /// Whether nothing is published from here.
    is_idle: bool,
    /// What the fleet has.
    fleet: Option<Receiver<Newest>>,
    /// When to compare the files with it.
    compare_at: Option<Instant>,
}

impl UnitsDir {
    /// For `source_directory` and `state_directory` of the configuration, on that machine. What is
    /// wrong is sent to `problems`.
    pub fn new(
        directory: &Path,
        state_directory: &Path,
        machine: &MachineId,
        publisher: Arc<dyn Publisher>,
        check: Check,
        problems: Sender<Problems>,
    ) -> Self {
        let state_file = state_directory.join(STATE_FILE);
        let loaded = state::load(&state_file, directory, machine);
        Self {
            directory: directory.to_owned(),
            machine: machine.clone(),
            is_anothers: loaded.as_ref().is_ok_and(|loaded| loaded.is_anothers),
            published: loaded.map(|loaded| loaded.published),
            state_file,
            publisher,
            check,
            findings: Findings::new(problems),
            saved: true,
            source: Box::new(Disk::new(directory)),
            settled: None,
            gone: Grace::default(),
            retry: Backoff::new(machine.as_str()).up_to(RETRY_MAX),
            is_idle: false,
            fleet: None,
            compare_at: None,
        }
    }

    /// The same, which names files whose content the fleet does not have.
    pub fn comparing(self, fleet: Receiver<Newest>) -> Self {
        Self {
            fleet: Some(fleet),
            ..self
        }
    }

    /// The same on a machine that publishes nothing: each unit file is a problem, so that its
    /// author hears of it.
    pub fn idle(self) -> Self {
        Self {
            is_idle: true,
            ..self
        }
    }

    /// The same for a directory in memory.
    pub fn showing(self, shown: &Memory) -> Self {
        let source = Box::new(shown.seen_anew());
        Self { source, ..self }
    }

    /// Runs for ever. Dropping it at any moment is safe: what was done and not yet remembered is
    /// found done by the next one.
    pub async fn run(mut self) -> Infallible {
        loop {
            let next = self.round().await;
            self.findings.send();
            match next {
                // Events do not cut this short: a busy directory must not hammer a registry that is
                // away.
                Next::Retry(wait) => sleep(wait).await,
                Next::Look(wait) => self.wait(wait).await,
            }
        }
    }

    async fn wait(&mut self, at_most: Duration) {
        let until = Instant::now() + at_most;
        loop {
            let compare_at = self.compare_at;
            tokio::select! {
                biased;
                () = self.source.changed() => return self.source.settle().await,
                () = sleep_until(until) => return,
                () = changed(&mut self.fleet) => {
                    self.compare_at.get_or_insert(Instant::now() + COMPARE);
                }
                () = sleep_until(compare_at.unwrap_or(until)), if compare_at.is_some() => {
                    self.compare_at = None;
                    self.compare();
                    self.findings.send();
                }
            }
        }
    }

    /// Names the files that were published and differ from what the fleet has.
    fn compare(&mut self) {
        let (Some(fleet), Ok(published)) = (&mut self.fleet, &self.published) else {
            return;
        };
        let Some(newest) = fleet.borrow_and_update().clone() else {
            return;
        };
        let lost = published.units.iter().filter_map(|(name, last)| {
            let content = newest.get(name).map(directory::Fingerprint::of);
            let text = directory::lost(last, content.as_ref())?;
            let file = self.directory.join(name.as_str()).display().to_string();
            Some((file, text.to_owned()))
        });
        self.findings.lost(lost.collect());
    }

    async fn round(&mut self) -> Next {
        let Ok(look) = self.source.look(&mut self.findings).await else {
            return Next::Look(RECENT);
        };
        let Some((seen, again)) = look else {
            return Next::Look(DEBOUNCE);
        };
        if self.settled.as_ref() == Some(&seen) {
            return Next::Look(LOOK);
        }
        self.settled = None;
        // What is published now is heard of by the agent a moment later.
        self.compare_at = Some(Instant::now() + COMPARE);
        self.findings.begin();
        if self.is_idle {
            self.find_idle_files(&seen);
            self.settled = again.is_none().then_some(seen);
            return Next::Look(again.unwrap_or(LOOK));
        }
        if self.published.is_err() {
            let loaded = state::load(&self.state_file, &self.directory, &self.machine);
            self.is_anothers = loaded.as_ref().is_ok_and(|loaded| loaded.is_anothers);
            self.published = loaded.map(|loaded| loaded.published);
        }
        let mut published = match &self.published {
            Ok(published) => published.clone(),
            Err(damage) => {
                self.findings.problem(&self.state_file, damage);
                return Next::Look(LOOK);
            }
        };
        let mut directory = seen.clone();
        let going = self.spare_those_just_gone(&published, &mut directory);
        let outcome = self.act(&mut published, &directory).await;
        if !matches!(outcome, Outcome::Held) {
            self.mark(&mut published, &seen).await;
        }
        // A file that is still being written belongs to the first look, too.
        if again.is_none() && matches!(outcome, Outcome::Done | Outcome::Refused) {
            published.seen |= matches!(seen, Directory::Present { .. });
        }
        let remembered = self.remember(published).await;
        if let Outcome::Away = outcome {
            return Next::Retry(self.retry.wait());
        }
        self.retry.reset();
        let again = again.or(going.then_some(GONE));
        if again.is_none() && remembered && matches!(outcome, Outcome::Done) {
            self.settled = Some(seen);
        }
        Next::Look(again.unwrap_or(LOOK))
    }

    fn find_idle_files(&mut self, directory: &Directory) {
        const IDLE: &str = "nothing happens: this machine has disable_engine=true and publishes no files; \
                            put the file onto a machine that does, or use fleetctl start";
        let Directory::Present { files, .. } = directory else {
            return;
        };
        for entry in files.keys() {
            if let Named::Unit(name) = directory::named(entry) {
                let file = self.directory.join(name.as_str());
                self.findings.problem(&file, IDLE);
            }
        }
    }

    /// Lists files that went a moment ago as if they were there, unless the directory is held.
    /// Answers whether there are any.
    fn spare_those_just_gone(&mut self, published: &Published, directory: &mut Directory) -> bool {
        match (directory::held(published, directory), directory) {
            (None, Directory::Present { files, .. }) => {
                self.gone.spare(published, files, Instant::now())
            }
            _ => {
                self.gone.reset();
                false
            }
        }
    }

    async fn act(&mut self, published: &mut Published, directory: &Directory) -> Outcome {
        let asked = directory::questions(published, directory);
        let known = match self.known(&asked).await {
            Ok(known) => known,
            Err(error) => {
                self.findings
                    .problem(&self.directory, &format!("changes wait: {error}"));
                return Outcome::Away;
            }
        };
        let actions = match directory::decide(published, directory, &known, self.check) {
            Decision::Held(reason) => {
                self.findings.problem(&self.directory, &reason.to_string());
                return Outcome::Held;
            }
            Decision::Act {
                actions,
                problems,
                notes,
            } => {
                self.findings.files(&self.directory, problems, notes);
                actions
            }
        };
        let mut outcome = Outcome::Done;
        if self.is_anothers {
            match self.own(published).await {
                // So that it is written down.
                Ok(()) => (self.is_anothers, self.saved) = (false, false),
                Err(error) => {
                    self.findings
                        .problem(&self.directory, &format!("changes wait: {error}"));
                    return Outcome::Away;
                }
            }
        }
        let mut is_overtaken = false;
        // All at once: what one look finds reaches the machines together, so that a timer finds its
        // service there.
        let done = join_all(actions.iter().map(|action| self.perform(action))).await;
        for (action, done) in actions.iter().zip(done) {
            match done {
                Ok(true) => {
                    tracing::info!(unit = %action.name(), "{action}");
                    published.apply(action);
                    if let Action::PassOver(name, _, why) = action {
                        let file = self.directory.join(name.as_str());
                        self.findings.problem(&file, &why.to_string());
                    }
                }
                // Somebody was first: what follows from the file is decided again.
                Ok(false) => is_overtaken = true,
                Err(PublishError::Refused(reason)) => {
                    let file = self.directory.join(action.name().as_str());
                    self.findings.problem(&file, &reason);
                    if matches!(outcome, Outcome::Done) {
                        outcome = Outcome::Refused;
                    }
                }
                Err(error @ PublishError::Unavailable(_)) => {
                    self.findings
                        .problem(&self.directory, &format!("changes wait: {error}"));
                    outcome = Outcome::Away;
                }
            }
        }
        if is_overtaken { Outcome::Away } else { outcome }
    }

    /// Owns what another machine published from this directory: the machine has another id now, or
    /// the disk is a copy.
    async fn own(&self, published: &Published) -> Result<(), PublishError> {
        let ours = published.units.iter().filter(|(_, last)| !last.stale);
        for (name, _) in ours {
            match self.publisher.adopt(name, None).await {
                Ok(_) | Err(PublishError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn known(&self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Known>, PublishError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.publisher.known(names).await
    }

    /// Answers false if somebody was first.
    async fn perform(&self, action: &Action) -> Result<bool, PublishError> {
        match action {
            Action::Disown(name) => self.publisher.disown(name).await?,
            Action::Adopt(name, content) => {
                return self.publisher.adopt(name, Some(content)).await;
            }
            Action::PassOver(..) => {}
            Action::Publish {
                name,
                content,
                target,
                ..
            } => self.publisher.publish(name, content, *target).await?,
        }
        Ok(true)
    }

    /// Makes the marker, once there is something to lose: the empty directory below a mount point
    /// is to stay unmarked.
    async fn mark(&mut self, published: &mut Published, seen: &Directory) {
        let Directory::Present { marked, .. } = *seen else {
            return;
        };
        published.marked = marked;
        if marked || published.units.is_empty() {
            return;
        }
        let marker = self.directory.join(MARKER);
        match self.source.mark().await {
            Ok(()) => published.marked = true,
            Err(error) => self.findings.problem(
                &marker,
                &format!("cannot be made: {error}. Without it, another directory in this place is not recognised"),
            ),
        }
    }

    /// Writes down what was published. Answers whether it is on disk.
    async fn remember(&mut self, published: Published) -> bool {
        if self.published.as_ref() == Ok(&published) && self.saved {
            return true;
        }
        self.published = Ok(published.clone());
        let (file, directory) = (self.state_file.clone(), self.directory.clone());
        // Until this machine owns what the other one published, it is the other one's.
        let machine = (!self.is_anothers).then(|| self.machine.clone());
        let save = move || state::save(&file, &directory, machine, &published);
        let saved = match self.source.is_slow() {
            true => blocking(save).await,
            false => save(),
        };
        if let Err(error) = &saved {
            let text = format!(
                "cannot be written: {error}; what was published is forgotten at the next start"
            );
            self.findings.problem(&self.state_file, &text);
        }
        self.saved = saved.is_ok();
        self.saved
    }
}

/// When to look again.
enum Next {
    /// At the next event, and after that time at the latest.
    Look(Duration),
    /// After that time.
    Retry(Duration),
}

/// How far a round came.
enum Outcome {
    Done,
    /// Nothing may be done.
    Held,
    /// The registry would not take everything.
    Refused,
    /// The registry is away, or somebody was first there.
    Away,
}

/// Waits until the fleet has something else. Safe to cancel.
async fn changed(fleet: &mut Option<Receiver<Newest>>) {
    if let Some(fleet) = fleet
        && fleet.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Reads or writes files on a thread of its own: a disk or a network file system may hang, and the
/// agent must not.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this future with it.
            Err(_) => std::future::pending().await,
        },
    }
}
