//! Removal of a lab by its id alone: after success, a panic, Ctrl-C, or a killed test process.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

use crate::exec::run;
use crate::{cgroup, folders, network};

/// The directory where systemd-nspawn keeps one for each container. It removes them itself, unless
/// it was killed.
const PROPAGATE: &str = "/run/systemd/nspawn/propagate";

/// Removes the labs whose process is gone. Every start of a lab does this too.
pub fn sweep() -> Result<()> {
    let _turn = folders::turn("run")?;
    sweep_in_turn()
}

pub(crate) fn sweep_in_turn() -> Result<()> {
    for id in labs()? {
        if folders::is_orphan(&folders::running().join(&id)) {
            remove(&id)?;
        }
    }
    Ok(())
}

/// Removes all labs of this process, which was asked to end.
pub fn remove_own() -> Result<()> {
    let own = std::process::id().to_string();
    for id in labs()? {
        let owner = fs::read_to_string(folders::running().join(&id).join("owner"));
        if owner.is_ok_and(|pid| pid.trim() == own) {
            remove(&id)?;
        }
    }
    Ok(())
}

/// Ends all processes of one lab and removes its mounts, namespaces, cgroups and files.
///
/// It may be called twice, or for a lab that was only partly created.
pub fn remove(id: &str) -> Result<()> {
    // After Ctrl-C, another thread than the one that drops the lab removes it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();

    for cgroup in cgroup::of_lab(id)? {
        cgroup::remove(&cgroup)?;
    }
    for mount in mounts(id)?.iter().rev() {
        remove_nspawn_lock(mount)?;
        // Detached, because a systemd-nspawn that was just killed may use it for another moment.
        unmount(mount.as_str(), UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {mount}"))?;
    }
    for namespace in names(Path::new(network::NAMESPACES), &network::prefix(id)) {
        run(&["ip", "netns", "delete", &namespace])?.ok()?;
    }
    for left in names(Path::new(PROPAGATE), &network::prefix(id)) {
        fs::remove_dir_all(Path::new(PROPAGATE).join(left))?;
    }
    let folder = folders::running().join(id);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Returns everything on this machine that belongs to a lab, one line each. It is empty once the
/// lab is removed.
pub fn traces(id: &str) -> Result<Vec<String>> {
    let mut found: Vec<String> = mounts(id)?
        .into_iter()
        .map(|mount| format!("mount {mount}"))
        .collect();
    found.extend(names(Path::new(network::NAMESPACES), &network::prefix(id)));
    found.extend(names(Path::new(PROPAGATE), &network::prefix(id)));
    found.extend(names(&folders::running(), id));
    for cgroup in cgroup::of_lab(id)?.iter().filter(|cgroup| cgroup.exists()) {
        found.push(format!("cgroup {}", cgroup.display()));
    }
    let mark = format!("fleet-{id}");
    for entry in fs::read_dir("/proc")?.flatten() {
        // A process may end meanwhile. It is a zombie until its parent waits for it.
        let of = |file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let belongs = of("cgroup").contains(&mark) || of("cmdline").contains(&mark);
        if belongs && !of("status").contains("\nState:\tZ") {
            found.push(format!(
                "process {} {}",
                entry.path().display(),
                of("cmdline").replace('\0', " ")
            ));
        }
    }
    Ok(found)
}

/// Removes the lock that a killed systemd-nspawn leaves for its root, named by device and inode.
fn remove_nspawn_lock(root: &str) -> Result<()> {
    let root = fs::metadata(root)?;
    match fs::remove_file(format!(
        "/run/systemd/nspawn/locks/inode-{}:{}",
        root.dev(),
        root.ino()
    )) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Returns the ids of all labs that have a directory.
fn labs() -> Result<Vec<String>> {
    fs::create_dir_all(folders::running())?;
    Ok(names(&folders::running(), ""))
}

/// Returns the mount points below a lab's directory, outermost first.
fn mounts(id: &str) -> Result<Vec<String>> {
    let inside = folders::running().join(id);
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(points
        .filter(|point| Path::new(point).starts_with(&inside))
        .map(str::to_owned)
        .collect())
}

/// Returns the entries of a directory whose names start with `prefix`. A missing directory has
/// none.
fn names(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}
