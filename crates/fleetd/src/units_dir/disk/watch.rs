//! Notices that a units directory may have changed, and which of its files are being written.
//!
//! An event only means "look again". What is kept between events is one thing: a file that was
//! written to is *open* until its writer closed it or another file took its name.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::{Instant, timeout};

/// Room for some hundred events; the rest is read in the next turn.
const BUFFER: usize = 16 * 1024;

/// No event for so long means that all there were have been read. The runtime learns of events only
/// when it polls the kernel, and it has done that when a timer, however short, fires.
const SILENCE: Duration = Duration::from_millis(1);

/// Where events do not end for so long, they are taken as endless.
const FLOOD: Duration = Duration::from_millis(50);

/// A running watch on a directory that may not exist yet, and on the place where it would appear.
pub(in crate::units_dir) struct Watch {
    events: EventStream<Vec<u8>>,
    watches: Watches,
    directory: PathBuf,
    here: Option<WatchDescriptor>,
    above: Option<WatchDescriptor>,
    open: BTreeSet<OsString>,
    /// Whether files may have been opened before anybody watched.
    pub(in crate::units_dir) unwatched: bool,
}

/// What the events since the last look were about.
#[derive(Default)]
pub(in crate::units_dir) struct Touched {
    /// These files.
    pub(in crate::units_dir) names: BTreeSet<OsString>,
    /// The directory as a whole, or nobody knows.
    pub(in crate::units_dir) all: bool,
}

impl Watch {
    pub(in crate::units_dir) fn new(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        Ok(Self {
            watches: inotify.watches(),
            events: inotify.into_event_stream(vec![0; BUFFER])?,
            directory: directory.to_owned(),
            here: None,
            above: None,
            open: BTreeSet::new(),
            unwatched: true,
        })
    }

    /// Puts the watches where the directory is now. To be called before every look, since it may
    /// have appeared, or another may have taken its place.
    pub(in crate::units_dir) fn arm(&mut self) -> io::Result<()> {
        // The place above comes first: what appears after it was looked at makes an event.
        let mut above = None;
        for place in self.directory.ancestors().skip(1) {
            above = present(self.watches.add(place, above_mask()))?;
            if above.is_some() {
                break;
            }
        }
        let here = present(self.watches.add(&self.directory, here_mask()))?;
        let before = [
            std::mem::replace(&mut self.above, above),
            std::mem::replace(&mut self.here, here),
        ];
        if before[1] != self.here {
            self.forget();
        }
        for watch in before.into_iter().flatten() {
            if Some(&watch) != self.above.as_ref() && Some(&watch) != self.here.as_ref() {
                // Refused where the directory is gone, and its watch with it.
                let _ = self.watches.remove(watch);
            }
        }
        Ok(())
    }

    /// Waits for an event. Safe to cancel.
    pub(in crate::units_dir) async fn changed(&mut self) -> io::Result<()> {
        if let Some(event) = self.events.next().await {
            self.take(event?, &mut Touched::default());
        }
        Ok(())
    }

    /// Reads all events that there are up to now, and keeps track of open files.
    pub(in crate::units_dir) async fn catch_up(&mut self) -> io::Result<Touched> {
        let mut touched = Touched::default();
        let start = Instant::now();
        while let Ok(Some(event)) = timeout(SILENCE, self.events.next()).await {
            self.take(event?, &mut touched);
            if start.elapsed() > FLOOD {
                touched.all = true;
                break;
            }
        }
        Ok(touched)
    }

    fn take(&mut self, event: EventOwned, touched: &mut Touched) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.forget();
            touched.all = true;
        } else if Some(&event.wd) == self.above.as_ref() {
            touched.all = true;
        } else if Some(&event.wd) == self.here.as_ref() {
            match event.name {
                Some(name) => {
                    self.track(&name, event.mask);
                    touched.names.insert(name);
                }
                None => touched.all = true,
            }
        }
    }

    /// The files that are being written, by name.
    pub(in crate::units_dir) fn open(&self) -> &BTreeSet<OsString> {
        &self.open
    }

    fn forget(&mut self) {
        self.open.clear();
        self.unwatched = true;
    }

    fn track(&mut self, name: &OsStr, mask: EventMask) {
        let ends = EventMask::CLOSE_WRITE
            | EventMask::MOVED_TO
            | EventMask::MOVED_FROM
            | EventMask::DELETE;
        if mask.intersects(ends) {
            self.open.remove(name);
        } else if mask.contains(EventMask::MODIFY)
            // A link to a file, hard or symbolic, is made at once: no close will follow. So only
            // what is empty is about to be written.
            || mask.contains(EventMask::CREATE) && is_empty_file(&self.directory.join(name))
        {
            self.open.insert(name.to_owned());
        }
    }
}

fn is_empty_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.len() == 0)
}

fn here_mask() -> WatchMask {
    above_mask() | WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::ATTRIB
}

fn above_mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

/// None where there is nothing to watch.
fn present(watch: io::Result<WatchDescriptor>) -> io::Result<Option<WatchDescriptor>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match watch {
        Ok(watch) => Ok(Some(watch)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}
