//! Files that are whole or not there, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Puts `bytes` in place of the file, mode 0600. It is on disk when this returns.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    swap(path, bytes)?;
    sync_directory(path)
}

/// Puts `bytes` in place of the file, mode 0600. After an error the old file is in place; a power
/// cut may still bring it back until [`sync_directory`].
pub fn swap(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // Left behind by a crash, or put there by somebody: never written through.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // On a full disk the part that was written is what others need.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes a [`swap`] last.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        replace(&path, b"one").expect("writes");
        replace(&path, b"two").expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 1);
    }

    #[test]
    fn a_planted_link_is_not_written_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let victim = folder.path().join("victim");
        fs::write(&victim, "untouched").expect("writes");
        symlink(&victim, folder.path().join("state.new")).expect("links");
        replace(&folder.path().join("state.json"), b"x").expect("writes");
        assert_eq!(fs::read(&victim).expect("reads"), b"untouched");
    }
}
