//! Notices what somebody does by hand to fleet's unit files and to systemd's links to them.
//!
//! systemd tells nothing of files until it reads them. The kernel tells of every change, and costs nothing while there
//! is none. Where it cannot be asked, changes are noticed whenever a unit is looked at for another reason.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchMask, Watches};
use tokio::task::JoinHandle;

use super::links;
use crate::systemd::changes::Changes;

/// Room for some hundred events; the rest is read in the next turn.
const BUFFER: usize = 16 * 1024;

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

async fn follow(mut events: EventStream<Vec<u8>>, changes: Arc<Changes>) {
    while let Some(event) = events.next().await {
        let Ok(event) = event else { return };
        let lost = EventMask::Q_OVERFLOW | EventMask::IGNORED | EventMask::MOVE_SELF;
        if event.mask.intersects(lost) {
            changes.mark_all();
        } else if let Some(name) = event.name.as_ref().and_then(|name| name.to_str()) {
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
