//! A units directory on a disk: what lies in it, and how its changes are noticed.

mod scan;
mod trust;
mod watch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::directory::{Directory, MARKER};
use tokio::time::{Instant, sleep, timeout};

pub(super) use self::scan::RECENT;
use self::scan::Scan;
use self::watch::Watch;
use super::problems::Findings;
use super::source::Source;
use super::{DEBOUNCE, blocking};

/// How long nothing must happen after an event. A service is read together with the timer that is
/// copied after it, and loaded for that reason, not started.
pub(super) const SETTLE: Duration = Duration::from_millis(40);

/// How long to wait for that at most: something may write for ever.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// The directory.
pub(super) struct Disk {
    directory: PathBuf,
    watch: Option<Watch>,
}

impl Disk {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            watch: None,
        }
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

    async fn read(
        &mut self,
        findings: &mut Findings,
    ) -> io::Result<Option<(Directory, Option<Duration>)>> {
        let armed = self.arm();
        findings.unwatched(&self.directory, armed.err().as_ref());
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
        // Before open files are skipped, only unwatched ones count as unfinished.
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
}

#[async_trait]
impl Source for Disk {
    async fn changed(&mut self) {
        match &mut self.watch {
            Some(watch) => {
                if watch.changed().await.is_err() {
                    self.watch = None;
                }
            }
            None => std::future::pending().await,
        }
    }

    async fn settle(&mut self) {
        let start = Instant::now();
        while let Some(watch) = &mut self.watch
            && start.elapsed() < SETTLE_MAX
        {
            match timeout(SETTLE, watch.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => self.watch = None,
                Err(_) => return,
            }
        }
        sleep(DEBOUNCE).await;
    }

    async fn look(
        &mut self,
        findings: &mut Findings,
    ) -> io::Result<Option<(Directory, Option<Duration>)>> {
        let read = self.read(findings).await;
        if read.is_err() {
            // Re-created at the next look, which reports a failure.
            self.watch = None;
        }
        read
    }

    async fn mark(&mut self) -> io::Result<()> {
        let marker = self.directory.join(MARKER);
        blocking(move || fs::File::create_new(marker))
            .await
            .map(drop)
    }

    fn is_slow(&self) -> bool {
        true
    }
}
