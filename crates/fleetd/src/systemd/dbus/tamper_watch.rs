//! Notices what somebody does by hand to fleet's unit files and to systemd's links to them.
//!
//! systemd tells nothing of files until it reads them. The kernel tells of every change, and costs
//! nothing while there is none. Where it cannot be asked, changes are noticed whenever a unit is
//! looked at for another reason.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use inotify::{Event, EventMask, Inotify, WatchMask, Watches};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::links;
use crate::systemd::changes::Changes;

/// Room for some hundred events; the rest is read in the next turn.
const BUFFER: usize = 16 * 1024;

/// The pause after events that could not be read: the next ones may not be readable either.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Marks a unit as changed whenever its file or link was. Its task ends with this value.
pub(super) struct Guard {
    directories: [PathBuf; 2],
    /// None where the kernel refused.
    watches: Option<Mutex<Watches>>,
    task: Option<JoinHandle<()>>,
}

impl Guard {
    /// Starts watching.
    pub(super) fn post(changes: Arc<Changes>, directory: &Path) -> Self {
        let directories = [directory.to_owned(), PathBuf::from(links::RUNTIME)];
        let opened = Inotify::init().and_then(|inotify| {
            let watches = inotify.watches();
            Ok((watches, inotify.into_event_stream(vec![0; BUFFER])?))
        });
        let (watches, task) = match opened {
            Ok((watches, events)) => (
                Some(Mutex::new(watches)),
                Some(tokio::spawn(follow(events, changes))),
            ),
            Err(error) => {
                tracing::warn!(
                    "changes of unit files by hand are noticed late, raise fs.inotify.max_user_instances: {error}"
                );
                (None, None)
            }
        };
        let guard = Self {
            directories,
            watches,
            task,
        };
        guard.watch();
        guard
    }

    /// Puts the watches where the directories are now; one that is watched already stays so.
    pub(super) fn watch(&self) {
        let Some(watches) = &self.watches else { return };
        let mut watches = watches.lock().unwrap_or_else(PoisonError::into_inner);
        for directory in &self.directories {
            if let Err(error) = watches.add(directory, mask()) {
                tracing::debug!("{} is not watched: {error}", directory.display());
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn follow<E: AsRef<OsStr>>(
    mut events: impl Stream<Item = io::Result<Event<E>>> + Unpin,
    changes: Arc<Changes>,
) {
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!("changes of unit files by hand may be missed: {error}");
                changes.mark_all();
                sleep(READ_AGAIN).await;
                continue;
            }
        };
        let lost = EventMask::Q_OVERFLOW | EventMask::IGNORED | EventMask::MOVE_SELF;
        if event.mask.intersects(lost) {
            changes.mark_all();
        } else if let Some(name) = event.name.as_ref().and_then(|it| it.as_ref().to_str()) {
            // Names that are no unit of fleet's are followed by nobody.
            changes.mark(name);
        }
    }
}

/// What is still being written is not looked at: its writer closes it.
fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;

    use fleet_core::unit::UnitName;
    use futures_util::stream;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::systemd::Dirty;

    #[tokio::test(start_paused = true)]
    async fn error_of_one_event_does_not_end_the_watch() {
        let changes = Arc::new(Changes::new());
        let name = UnitName::parse("a.service").expect("valid");
        changes.follow(&name);
        changes.next().await;
        // The event itself cannot be made by hand: the watch of a folder makes it.
        let folder = tempfile::tempdir().expect("a folder");
        let inotify = Inotify::init().expect("inotify");
        inotify
            .watches()
            .add(folder.path(), mask())
            .expect("watched");
        std::fs::write(folder.path().join("a.service"), "").expect("written");
        let mut inotify = inotify;
        let mut buffer = [0; 1024];
        let events = inotify.read_events(&mut buffer).expect("read");
        let events: Vec<Event<OsString>> = events.map(|event| event.to_owned()).collect();
        let broken = stream::iter([Err(io::Error::other("broken"))]);
        let all = broken.chain(stream::iter(events.into_iter().map(Ok)));
        let begin = Instant::now();
        tokio::spawn(follow(all, changes.clone()));
        assert_eq!(changes.next().await, Dirty::All);
        let told = timeout(READ_AGAIN * 2, changes.next()).await;
        assert_eq!(told, Ok(Dirty::Units(BTreeSet::from([name]))));
        assert!(begin.elapsed() >= READ_AGAIN);
    }
}
