//! The lock for one fleetd on a machine. Two would undo each other's work.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// The error of opening a link that must not be followed.
const LOOP: i32 = Errno::LOOP.raw_os_error();

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another fleetd has the lock. Exit: it does the same work.
    #[error("another fleetd (pid {pid}) runs with the same directory {directory}; stop it first", directory = directory.display())]
    Held {
        /// The number in the lock file.
        pid: String,
        /// The path that both would use.
        directory: PathBuf,
    },
    /// The lock cannot be used. Continue: units must not wait for a disk.
    #[error("{path}: {why}", path = path.display())]
    Unusable {
        /// The file of the lock.
        path: PathBuf,
        /// The error of the system, or the next step.
        why: String,
    },
}

/// Takes the lock of a directory. The kernel releases it when the result is dropped or the process
/// ends.
pub(super) fn take(directory: &Path, name: &str) -> Result<File, LockError> {
    let path = directory.join(name);
    let unusable = |why: String| LockError::Unusable {
        path: path.clone(),
        why,
    };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        // This does not follow a link, nor wait for a pipe.
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path)
        .map_err(|error| match error.raw_os_error() {
            Some(LOOP) => unusable("it is not a plain file: remove it".to_owned()),
            _ => unusable(error.to_string()),
        })?;
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err(unusable("it is not a plain file: remove it".to_owned()));
    }
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        return Err(LockError::Held {
            pid: pid.trim().to_owned(),
            directory: directory.to_owned(),
        });
    }
    // It is only for the message above. A full disk is no reason not to run.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_of_another_kind_is_not_followed_nor_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (lock, victim) = (folder.path().join("lock"), folder.path().join("victim"));
        std::fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, &lock).expect("linked");
        let told = || {
            take(folder.path(), "lock")
                .expect_err("refused")
                .to_string()
        };
        assert!(
            told().ends_with("/lock: it is not a plain file: remove it"),
            "{}",
            told()
        );
        assert_eq!(std::fs::read(&victim).expect("read"), b"precious");
        std::fs::remove_file(&lock).expect("removed");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &lock, fifo, 0o600.into(), 0).expect("made");
        assert!(
            told().ends_with("/lock: it is not a plain file: remove it"),
            "{}",
            told()
        );
    }

    #[test]
    fn second_daemon_reports_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = take(folder.path(), "lock").expect("free");
        let error = take(folder.path(), "lock").expect_err("taken").to_string();
        assert!(
            error.contains(&format!("another fleetd (pid {})", std::process::id())),
            "{error}"
        );
        drop(first);
        take(folder.path(), "lock").expect("free again");
    }
}
