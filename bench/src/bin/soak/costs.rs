//! The resources held by fleetd and etcd. Growth over an hour is a leak.

use anyhow::{Context, Result};
use lab::Lab;

/// The costs at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// The memory of the fleetd that uses the most, in MiB.
    pub(crate) memory: f64,
    /// The open files of the fleetd that has the most.
    pub(crate) files: usize,
    /// The number of keys in the registry.
    pub(crate) keys: usize,
}

impl Costs {
    pub(crate) fn of(lab: &Lab) -> Result<Self> {
        let (mut memory, mut files) = (0.0_f64, 0);
        for host in lab.hosts() {
            let pid = host.main_pid("fleet.service")?;
            let status = host.read_file(&format!("/proc/{pid}/status"))?;
            let resident = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .and_then(|rest| rest.split_whitespace().next())
                .context("no VmRSS")?;
            memory = memory.max(resident.parse::<f64>()? / 1024.0);
            let open = std::fs::read_dir(host.path(&format!("/proc/{pid}/fd")))?;
            files = files.max(open.count());
        }
        let keys = lab
            .member(1)
            .etcdctl(&["get", "", "--prefix", "--keys-only"])?
            .ok()?;
        Ok(Self {
            memory,
            files,
            keys: keys.lines().filter(|line| !line.is_empty()).count(),
        })
    }
}
