//! What a units directory has to say: to the journal once, to `fleetctl status` as long as it
//! holds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tokio::sync::watch::Sender;

use super::Problems;

/// The problems and notes of the round, and of the one before.
pub(super) struct Findings {
    sink: Sender<Problems>,
    problems: Problems,
    notes: BTreeMap<String, String>,
    logged: BTreeMap<String, String>,
    unwatched: Option<(String, String)>,
    lost: Problems,
}

impl Findings {
    pub(super) fn new(sink: Sender<Problems>) -> Self {
        Self {
            sink,
            problems: Problems::new(),
            notes: BTreeMap::new(),
            logged: BTreeMap::new(),
            unwatched: None,
            lost: Problems::new(),
        }
    }

    /// Forgets what was found: a round finds everything that still holds.
    pub(super) fn begin(&mut self) {
        self.problems.clear();
        self.notes.clear();
    }

    pub(super) fn problem(&mut self, path: &Path, text: &str) {
        self.problems
            .insert(path.display().to_string(), text.to_owned());
    }

    /// Problems and notes by file name.
    pub(super) fn files(
        &mut self,
        directory: &Path,
        problems: BTreeMap<String, String>,
        notes: BTreeMap<String, String>,
    ) {
        let path = |name: String| directory.join(name).display().to_string();
        self.problems
            .extend(problems.into_iter().map(|(name, text)| (path(name), text)));
        self.notes
            .extend(notes.into_iter().map(|(name, text)| (path(name), text)));
    }

    /// Whether events can come. Kept apart, because it holds across rounds that find nothing new.
    pub(super) fn unwatched(&mut self, directory: &Path, error: Option<&io::Error>) {
        self.unwatched = error.map(|error| {
            (
                format!("inotify on {}", directory.display()),
                format!(
                    "changes are seen once a minute only: {error}; raise fs.inotify.max_user_instances or max_user_watches"
                ),
            )
        });
    }

    /// Files whose content the fleet does not run. Kept apart, because the directory may change
    /// without them.
    pub(super) fn lost(&mut self, lost: Problems) {
        self.lost = lost;
    }

    /// Logs what is new, and hands the problems on if they changed.
    pub(super) fn send(&mut self) {
        let mut problems = self.lost.clone();
        problems.extend(self.problems.clone());
        problems.extend(self.unwatched.clone());
        for (path, text) in &problems {
            if self.logged.get(path) != Some(text) {
                tracing::warn!("{path}: {text}");
            }
        }
        for (path, text) in &self.notes {
            if self.logged.get(path) != Some(text) {
                tracing::info!("{path}: {text}");
            }
        }
        self.logged = self.notes.clone();
        self.logged.extend(problems.clone());
        self.sink.send_if_modified(|sent| {
            let changed = *sent != problems;
            *sent = problems;
            changed
        });
    }
}
