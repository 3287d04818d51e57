//! fleet's directory of unit files (`/run/fleet/units`).
//!
//! All of it is plain, blocking file access: the directory lies in memory, and a hop to another
//! thread would cost more than the call.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fleet_core::unit::{Content, UnitName};

use crate::systemd::{Result, SystemdError};

/// The name of a file that is being written. It is no unit's name, so that neither systemd nor
/// [`Directory::read`] takes it for one.
const INCOMING: &str = ".incoming";

/// The directory. It and its files belong to fleet alone.
pub(super) struct Directory {
    path: PathBuf,
    writing: Mutex<()>,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            writing: Mutex::new(()),
        }
    }

    /// Where the file of this unit is, or would be.
    pub(super) fn file(&self, name: &UnitName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Whether there is anything at that place.
    pub(super) fn has(&self, name: &UnitName) -> bool {
        self.file(name).symlink_metadata().is_ok()
    }

    /// Where all of them are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, made if it is not there.
    pub(super) fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.path)
            .map_err(|error| failed("create", &self.path, &error))
    }

    /// One unit's file; none also if something else than a plain file is there.
    pub(super) fn read_one(&self, name: &UnitName) -> Result<Option<Content>> {
        let path = self.file(name);
        if !path.symlink_metadata().is_ok_and(|it| it.is_file()) {
            return Ok(None);
        }
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Content::from(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// All unit files. A directory that does not exist holds none; what is no plain file with a
    /// unit's name is not fleet's and is passed over.
    pub(super) fn read(&self) -> Result<BTreeMap<UnitName, Content>> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed("read", &self.path, &error)),
        };
        let mut files = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("read", &self.path, &error))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let name = entry.file_name().to_str().map(UnitName::parse);
            if let (true, Some(Ok(name))) = (is_file, name) {
                let path = entry.path();
                let bytes = std::fs::read(&path).map_err(|error| failed("read", &path, &error))?;
                files.insert(name, Content::from(bytes));
            }
        }
        Ok(files)
    }

    /// Writes a file whole or not at all. Nothing is synced to a disk: /run does not outlive the
    /// crash that syncing would be for.
    pub(super) fn write(&self, name: &UnitName, content: &Content) -> Result<()> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.create()?;
        let incoming = self.path.join(INCOMING);
        unlink(&incoming)?;
        let path = self.file(name);
        OpenOptions::new()
            .write(true)
            // Neither a link nor anything else that somebody put there is written through.
            .create_new(true)
            .mode(0o644)
            .open(&incoming)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .and_then(|()| std::fs::rename(&incoming, &path))
            .map_err(|error| failed("write", &path, &error))
    }

    /// Removes a file; one that is not there is no error.
    pub(super) fn remove(&self, name: &UnitName) -> Result<()> {
        unlink(&self.file(name))
    }
}

/// Removes a file or link; one that is not there is no error.
pub(super) fn unlink(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// The error that names the file and the cause.
pub(super) fn failed(what: &str, path: &Path, cause: &std::io::Error) -> SystemdError {
    SystemdError::File(format!("cannot {what} {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).expect("valid")
    }

    /// A directory of fleet's that is not there yet.
    fn place() -> (TempDir, Directory) {
        let place = TempDir::new().expect("a temporary directory");
        let directory = Directory::new(place.path().join("fleet/units"));
        (place, directory)
    }

    #[test]
    fn files_come_back_as_they_were_written() {
        let (_place, directory) = place();
        assert_eq!(directory.read().expect("read"), BTreeMap::new());
        let (name, content) = (unit("a@1.service"), Content::from(&b"[Service]\xff"[..]));
        directory
            .write(&name, &Content::from("old"))
            .expect("written");
        directory.write(&name, &content).expect("written again");
        let mode = directory
            .file(&name)
            .metadata()
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(
            directory.read().expect("read"),
            BTreeMap::from([(name.clone(), content)])
        );
        directory.remove(&name).expect("removed");
        directory.remove(&name).expect("gone already");
        assert_eq!(directory.read().expect("read"), BTreeMap::new());
    }

    #[test]
    fn what_is_no_unit_file_is_passed_over() {
        let (_place, directory) = place();
        directory
            .write(&unit("a.service"), &Content::from(""))
            .expect("written");
        std::fs::write(directory.path.join(INCOMING), "half").expect("written");
        std::fs::write(directory.path.join("notes.txt"), "").expect("written");
        std::fs::create_dir(directory.path.join("b.service")).expect("created");
        symlink("a.service", directory.path.join("c.service")).expect("linked");
        let names: Vec<_> = directory.read().expect("read").into_keys().collect();
        assert_eq!(names, [unit("a.service")]);
    }

    #[test]
    fn a_link_is_replaced_and_not_written_through() {
        let (place, directory) = place();
        directory
            .write(&unit("a.service"), &Content::from(""))
            .expect("written");
        let victim = place.path().join("victim");
        std::fs::write(&victim, "precious").expect("written");
        for name in [INCOMING, "b.service"] {
            symlink(&victim, directory.path.join(name)).expect("linked");
        }
        directory
            .write(&unit("b.service"), &Content::from("new"))
            .expect("written");
        assert_eq!(std::fs::read(&victim).expect("read"), b"precious");
        assert_eq!(
            std::fs::read(directory.file(&unit("b.service"))).expect("read"),
            b"new"
        );
    }

    #[test]
    fn an_error_names_the_file_and_the_cause() {
        let (_place, directory) = place();
        std::fs::create_dir_all(directory.path.join("a.service/x")).expect("created");
        let error = directory
            .write(&unit("a.service"), &Content::from(""))
            .expect_err("refused");
        let expected = format!(
            "cannot write {}: Is a directory",
            directory.path.join("a.service").display()
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
