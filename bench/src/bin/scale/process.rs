//! The resources used by a process, as the kernel reports them.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The resources used by one process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// The processor time of all its running threads.
    pub(crate) cpu: Duration,
    /// The resident memory, in bytes.
    pub(crate) rss: u64,
    /// The largest resident memory, since the start or `forget_peak`.
    pub(crate) peak: u64,
}

/// Returns the available memory, in bytes.
pub(crate) fn available_memory() -> Result<u64> {
    kib("/proc/meminfo", "MemAvailable:")
}

/// Returns a field that a kernel file gives in KiB, in bytes.
fn kib(path: &str, field: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .with_context(|| format!("{path} has no {field}"))
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = format!("/proc/{pid}/status");
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let first = text.split(' ').next();
            nanos += first.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Self {
            cpu: Duration::from_nanos(nanos),
            rss: kib(&status, "VmRSS:")?,
            peak: kib(&status, "VmHWM:")?,
        })
    }

    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }
}
