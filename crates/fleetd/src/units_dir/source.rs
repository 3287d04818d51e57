//! The seam to the files of a units directory: on a disk, or in memory for simulations.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use fleet_core::directory::Directory;

use super::problems::Findings;

/// Where a units directory lies.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// Waits until something may have changed since the last look. Safe to cancel.
    async fn changed(&mut self);

    /// Waits until nothing has happened in the directory for a while.
    async fn settle(&mut self);

    /// Reads the directory as of one moment, files that are being written apart, and says when to
    /// look again if no event will. `None` if the directory as a whole changed meanwhile.
    async fn look(
        &mut self,
        findings: &mut Findings,
    ) -> io::Result<Option<(Directory, Option<Duration>)>>;

    /// Makes the marker.
    async fn mark(&mut self) -> io::Result<()>;

    /// Whether files beside it may be slow. Histories replay exactly only where no other thread has
    /// a part in them.
    fn is_slow(&self) -> bool;
}
