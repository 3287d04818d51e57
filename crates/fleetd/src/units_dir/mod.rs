//! The units directory: unit files that somebody drops into a directory run on the whole fleet.
//!
//! ```text
//! inotify: look again ---> Scan ---> fleet_core::directory::decide ---> Publisher (the registry)
//!   and once a minute        ^                  ^        |
//!                        the directory   directory.json  +---> problems, notes
//! ```
//!
//! What to do is decided by [`fleet_core::directory`]; here it is noticed, read, done and remembered.
//! Every round starts from the files themselves, so a lost event costs at most a minute, and a registry
//! that is away costs nothing but time: what was not done is found undone in the next round.

mod disk;
mod grace;
mod memory;
mod problems;
mod state;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::directory::{self, Action, Decision, Directory, Known, MARKER, Published};
use fleet_core::unit::{Content, TargetState, UnitName};
use tokio::sync::watch::Sender;
use tokio::time::{Instant, sleep};

use disk::{RECENT, Scan, Watch};
use grace::{GONE, Grace};
pub use memory::Memory;
use problems::Findings;

/// How long to wait after an event for those that come with it: a copy of fifty files is one round.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// How often the directory is read without any event: for events that cannot come, such as those of a
/// file elsewhere that a link shows, or of a network file system. It asks the registry nothing.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait when the registry is away, at first; twice as long each time.
const RETRY: Duration = Duration::from_millis(200);

/// How long to wait at most: a registry that is back should find changes soon.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The file of the state directory that remembers what was published.
const STATE_FILE: &str = "directory.json";

/// Why the registry did not take something, by what is done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It cannot be reached. Normal; everything waits, and is tried again with a back-off.
    #[error("{0}")]
    Unavailable(String),
    /// It will not take this unit. Reported; the other units go on.
    #[error("{0}")]
    Refused(String),
}

/// The registry as a units directory sees it. Every call may be repeated: one that ended with an error may
/// have been done all the same.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// What the registry has of these units; those it does not know are left out.
    async fn known(&self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Known>, PublishError>;

    /// Submits the content, as a new unit with that target state or as an update that leaves the target
    /// state alone, and makes this machine's directory an owner.
    async fn publish(
        &self,
        name: &UnitName,
        content: &Content,
        target: TargetState,
    ) -> Result<(), PublishError>;

    /// Makes this machine's directory an owner. A unit that went meanwhile stays gone.
    async fn adopt(&self, name: &UnitName) -> Result<(), PublishError>;

    /// Ends the ownership of this machine's directory, and destroys the unit if nobody else owns it. No
    /// error if the unit or the ownership is not there.
    async fn disown(&self, name: &UnitName) -> Result<(), PublishError>;
}

/// Says why a content may not be launched from a directory, such as `not global`.
pub type Check = fn(&UnitName, &Content) -> Result<(), String>;

/// What somebody must mend: a path and a text.
pub type Problems = BTreeMap<String, String>;

/// Keeps the registry in step with one units directory.
pub struct UnitsDir {
    directory: PathBuf,
    state_file: PathBuf,
    publisher: Arc<dyn Publisher>,
    check: Check,
    findings: Findings,
    watch: Option<Watch>,
    /// The directory, where it is in memory.
    shown: Option<Memory>,
    /// What was published; an error while its file is damaged.
    published: Result<Published, String>,
    /// Whether that is on disk.
    saved: bool,
    /// The directory as it was when last nothing was left to do.
    settled: Option<Directory>,
    gone: Grace,
    retry: Duration,
}

impl UnitsDir {
    /// For `source_directory` and `state_directory` of the configuration. What is wrong is sent to `problems`.
    pub fn new(
        directory: &Path,
        state_directory: &Path,
        publisher: Arc<dyn Publisher>,
        check: Check,
        problems: Sender<Problems>,
    ) -> Self {
        let state_file = state_directory.join(STATE_FILE);
        Self {
            directory: directory.to_owned(),
            published: state::load(&state_file, directory),
            state_file,
            publisher,
            check,
            findings: Findings::new(problems),
            saved: true,
            watch: None,
            shown: None,
            settled: None,
            gone: Grace::default(),
            retry: RETRY,
        }
    }

    /// The same for a directory in memory.
    pub fn showing(self, shown: &Memory) -> Self {
        let shown = Some(shown.seen_anew());
        Self { shown, ..self }
    }

    /// Runs for ever. Dropping it at any moment is safe: what was done and not yet remembered is found
    /// done by the next one.
    pub async fn run(mut self) -> Infallible {
        loop {
            let next = self.round().await;
            self.findings.send();
            match next {
                // Events do not cut this short: a busy directory must not hammer a registry that is away.
                Next::Retry(wait) => sleep(wait).await,
                Next::Look(wait) => self.wait(wait).await,
            }
        }
    }

    async fn wait(&mut self, at_most: Duration) {
        if let Some(shown) = &mut self.shown {
            tokio::select! {
                biased;
                () = shown.changed() => sleep(DEBOUNCE).await,
                () = sleep(at_most) => {}
            }
            return;
        }
        let Some(watch) = &mut self.watch else {
            return sleep(at_most).await;
        };
        tokio::select! {
            changed = watch.changed() => {
                if changed.is_err() {
                    self.watch = None;
                }
                sleep(DEBOUNCE).await;
            }
            () = sleep(at_most) => {}
        }
    }

    async fn round(&mut self) -> Next {
        let Ok(look) = self.look().await else {
            // Made anew in the next round, which says so if it fails.
            self.watch = None;
            return Next::Look(RECENT);
        };
        let Some((seen, again)) = look else {
            return Next::Look(DEBOUNCE);
        };
        if self.settled.as_ref() == Some(&seen) {
            return Next::Look(LOOK);
        }
        self.settled = None;
        self.findings.begin();
        if self.published.is_err() {
            self.published = state::load(&self.state_file, &self.directory);
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
        let remembered = self.remember(published).await;
        if let Outcome::Away = outcome {
            let wait = self.retry;
            self.retry = (wait * 2).min(RETRY_MAX);
            return Next::Retry(wait);
        }
        self.retry = RETRY;
        let again = again.or(going.then_some(GONE));
        if again.is_none() && remembered && matches!(outcome, Outcome::Done) {
            self.settled = Some(seen);
        }
        Next::Look(again.unwrap_or(LOOK))
    }

    /// Reads the directory as of one moment, files that are being written apart, and says when to look
    /// again if no event will. None if the directory as a whole changed meanwhile.
    async fn look(&mut self) -> io::Result<Option<(Directory, Option<Duration>)>> {
        if let Some(shown) = &mut self.shown {
            return Ok(Some((shown.look(), None)));
        }
        let armed = self.arm();
        self.findings
            .unwatched(&self.directory, armed.err().as_ref());
        let directory = self.directory.clone();
        let Some(watch) = &mut self.watch else {
            let scan = blocking(move || Scan::read(&directory, true)).await;
            let again = scan.is_unfinished().then_some(RECENT);
            return Ok(Some((scan.directory, again)));
        };
        watch.catch_up().await?;
        let unwatched = watch.unwatched;
        let mut scan = blocking(move || Scan::read(&directory, unwatched)).await;
        // What was written while it was read may be half of it.
        let touched = watch.catch_up().await?;
        if touched.all {
            return Ok(None);
        }
        // Before open files are skipped, only those that nobody watched count as unfinished.
        watch.unwatched &= scan.is_unfinished();
        let again = if !touched.names.is_empty() {
            Some(DEBOUNCE)
        } else {
            watch.unwatched.then_some(RECENT)
        };
        scan.skip(&touched.names);
        scan.skip(watch.open());
        Ok(Some((scan.directory, again)))
    }

    /// Puts the watch in place; after an error there is none, not half of one.
    fn arm(&mut self) -> io::Result<()> {
        let mut watch = match self.watch.take() {
            Some(watch) => watch,
            None => Watch::new(&self.directory)?,
        };
        watch.arm()?;
        self.watch = Some(watch);
        Ok(())
    }

    /// Lists files that went a moment ago as if they were there, unless the directory is held. Answers
    /// whether there are any.
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
        for action in actions {
            match self.perform(&action).await {
                Ok(()) => {
                    tracing::info!(unit = %action.name(), "{action}");
                    published.apply(&action);
                }
                Err(PublishError::Refused(reason)) => {
                    let file = self.directory.join(action.name().as_str());
                    self.findings.problem(&file, &reason);
                    outcome = Outcome::Refused;
                }
                Err(error @ PublishError::Unavailable(_)) => {
                    self.findings
                        .problem(&self.directory, &format!("changes wait: {error}"));
                    return Outcome::Away;
                }
            }
        }
        outcome
    }

    async fn known(&self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Known>, PublishError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.publisher.known(names).await
    }

    async fn perform(&self, action: &Action) -> Result<(), PublishError> {
        match action {
            Action::Disown(name) => self.publisher.disown(name).await,
            Action::Adopt(name, _) => self.publisher.adopt(name).await,
            Action::PassOver(..) => Ok(()),
            Action::Publish {
                name,
                content,
                target,
                ..
            } => self.publisher.publish(name, content, *target).await,
        }
    }

    /// Makes the marker, once there is something to lose: the empty directory below a mount point is to
    /// stay unmarked.
    async fn mark(&mut self, published: &mut Published, seen: &Directory) {
        let Directory::Present { marked, .. } = *seen else {
            return;
        };
        published.marked = marked;
        if marked || published.units.is_empty() {
            return;
        }
        if let Some(shown) = &self.shown {
            shown.mark();
            published.marked = true;
            return;
        }
        let marker = self.directory.join(MARKER);
        let path = marker.clone();
        match blocking(move || fs::File::create_new(path)).await {
            Ok(_) => published.marked = true,
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
        let save = move || state::save(&file, &directory, &published);
        let saved = match self.shown {
            // Histories replay exactly only where no other thread has a part in them.
            Some(_) => save(),
            None => blocking(save).await,
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
    /// The registry is away.
    Away,
}

/// Reads or writes files on a thread of its own: a disk or a network file system may hang, and the agent
/// must not.
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
