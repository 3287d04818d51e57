//! A cgroup for each host's processes. It is also the way to end them: all at once, with no pid or
//! name to mistake.
//!
//! With `--keep-unit`, systemd-nspawn works below the cgroup it is started in. Hosts that shared
//! one would share one payload tree, hang in boot and kill each other's services.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::wait_until;

/// Returns the mount points of the hierarchies that systemd-nspawn uses: cgroup2, and v1's
/// `name=systemd` if the machine still has it. The first one is cgroup2.
pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let of = |wanted: fn(&str, &str) -> bool| {
        mounts.lines().find_map(move |line| {
            let fields: Vec<&str> = line.split(' ').collect();
            wanted(fields.get(2)?, fields.get(3)?).then(|| PathBuf::from(fields[1]))
        })
    };
    let unified = of(|kind, _| kind == "cgroup2")
        .context("needs cgroup2; mount it at /sys/fs/cgroup/unified")?;
    let systemd =
        of(|kind, options| kind == "cgroup" && options.split(',').any(|one| one == "name=systemd"));
    Ok([Some(unified), systemd].into_iter().flatten().collect())
}

/// Returns the cgroup of a whole lab, in each hierarchy.
pub(crate) fn of_lab(id: &str) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?
        .into_iter()
        .map(|root| root.join(format!("fleet-{id}")))
        .collect())
}

/// The cgroup of one host or etcd member.
#[derive(Debug)]
pub(crate) struct Cgroup {
    paths: Vec<PathBuf>,
}

impl Cgroup {
    /// Names a cgroup; [`Cgroup::launch`] creates it.
    pub(crate) fn new(id: &str, name: &str) -> Result<Self> {
        Ok(Self {
            paths: of_lab(id)?.into_iter().map(|lab| lab.join(name)).collect(),
        })
    }

    /// Returns a command that enters the cgroup before its program starts. Processes of an earlier
    /// program are removed.
    pub(crate) fn launch(&self, program: &[&str]) -> Result<Command> {
        let mut script = String::new();
        for path in &self.paths {
            remove(path)?;
            fs::create_dir_all(path)
                .with_context(|| format!("cannot make cgroup {}", path.display()))?;
            script += &format!("echo $$ > '{}/cgroup.procs' && ", path.display());
        }
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{script}exec \"$@\""), "sh"])
            .args(program);
        Ok(command)
    }
}

/// Ends every process of a cgroup and of those below it, then removes them. A missing cgroup is no
/// error.
pub(crate) fn remove(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    // Only cgroup2 has these files, and every process of a lab is in that hierarchy too.
    let (kill, events) = (cgroup.join("cgroup.kill"), cgroup.join("cgroup.events"));
    if kill.exists() {
        fs::write(&kill, "1").with_context(|| format!("cannot write {}", kill.display()))?;
        wait_until(
            Duration::from_secs(10),
            "the killed processes are gone",
            || Ok(fs::read_to_string(&events)?.contains("populated 0")),
        )?;
    }
    remove_empty(cgroup).with_context(|| format!("cannot remove cgroup {}", cgroup.display()))
}

fn remove_empty(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(cgroup)?)
}
