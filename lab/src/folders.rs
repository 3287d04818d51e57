//! The lab's files. All of them are below `target/lab`.
//!
//! ```text
//! target/lab/rootfs-<hash>/    the hosts' root file system, made once, read-only in use
//! target/lab/run/<id>/         one lab: `owner` (locked while its process lives), `ram/` (a tmpfs)
//! target/lab/failed/<id>/      logs of a lab whose test failed
//! target/lab/*.lock            one turn at a time, between processes
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cleanup;

/// Returns cargo's target directory, without symbolic links, as in the kernel's list of mounts.
pub fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::fleet::repository().join("target"), PathBuf::from);
    fs::canonicalize(&target).unwrap_or(target)
}

/// Returns `target/lab`.
pub(crate) fn base() -> PathBuf {
    target().join("lab")
}

/// Returns `target/lab/run`: one directory for each lab, alive or left behind.
pub(crate) fn running() -> PathBuf {
    base().join("run")
}

/// Waits for a turn among all processes. The turn ends when the file is dropped or its process
/// dies.
pub(crate) fn turn(name: &str) -> Result<File> {
    let file = lock_file(name)?;
    file.lock()
        .with_context(|| format!("cannot lock {name}.lock"))?;
    Ok(file)
}

/// Opens `target/lab/<name>.lock`, not yet locked.
pub(crate) fn lock_file(name: &str) -> Result<File> {
    fs::create_dir_all(base())?;
    let path = base().join(format!("{name}.lock"));
    File::create(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// One lab's directory, and the sign that its owner is alive.
#[derive(Debug)]
pub(crate) struct Folder {
    /// The lab's id: eight hexadecimal digits, new for each lab.
    pub(crate) id: String,
    /// `target/lab/run/<id>`.
    pub(crate) path: PathBuf,
    // A lock instead of a written pid: the kernel releases it with its process, and pids are used
    // again.
    _owner: File,
}

impl Folder {
    /// Creates a new lab's directory, after removing the labs whose owner is gone.
    pub(crate) fn create() -> Result<Self> {
        let _turn = turn("run")?;
        cleanup::sweep_in_turn()?;
        let mut random = [0; 4];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let id = format!("{:08x}", u32::from_ne_bytes(random));
        let path = running().join(&id);
        fs::create_dir_all(path.join("ram"))?;
        let mut owner = File::create(path.join("owner"))?;
        owner.lock()?;
        writeln!(owner, "{}", std::process::id())?;
        Ok(Self {
            id,
            path,
            _owner: owner,
        })
    }

    /// Returns the path of the lab's tmpfs. A file system in memory is removed with one unmount.
    /// Also, overlayfs refuses an upper layer on an overlay, which is what a container's disk is.
    /// fsync costs nothing here, so etcd is faster than on a disk.
    pub(crate) fn ram(&self) -> PathBuf {
        self.path.join("ram")
    }
}

/// Returns whether the process that made this lab is gone.
pub(crate) fn is_orphan(lab: &Path) -> bool {
    // A directory without the file is a lab that was interrupted before it owned anything.
    File::open(lab.join("owner")).map_or(true, |owner| owner.try_lock().is_ok())
}
