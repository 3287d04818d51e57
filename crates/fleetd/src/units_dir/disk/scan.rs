//! Reads a units directory once: its names, and the content of those that are unit files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use fleet_core::directory::{Directory, File, MARKER, Named, named};
use fleet_core::record::CONTENT_MAX;

use super::trust;

/// How long an unwatched file must stay unchanged before it counts as whole.
pub(in crate::units_dir) const RECENT: Duration = Duration::from_millis(200);

const BEING_WRITTEN: &str = "still being written";
const NO_UNIT: &str = "not a unit file";

/// What was found.
pub(in crate::units_dir) struct Scan {
    pub(in crate::units_dir) directory: Directory,
    /// Links to files of the same directory: what is said of the file holds for the link, too.
    links: BTreeMap<String, OsString>,
}

impl Scan {
    /// Reads the directory. With `unwatched`, files of the last [`RECENT`] are skipped.
    pub(in crate::units_dir) fn read(path: &Path, unwatched: bool) -> Self {
        let mut scan = Self {
            directory: Directory::Missing,
            links: BTreeMap::new(),
        };
        if let Some(reason) = trust::of_directory(path) {
            scan.directory = Directory::Untrusted(reason);
            return scan;
        }
        scan.directory = match scan.list(path, unwatched) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Directory::Missing,
            Err(error) => Directory::Unreadable(error.to_string()),
        };
        scan
    }

    fn list(&mut self, path: &Path, unwatched: bool) -> io::Result<Directory> {
        let mut files = BTreeMap::new();
        let mut marked = false;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let raw = entry.file_name();
            if raw == MARKER {
                marked = true;
                continue;
            }
            let name = raw.to_string_lossy().into_owned();
            match read(&entry.path(), &name, unwatched) {
                Ok(file) => files.insert(name.clone(), file),
                // Listed a moment ago, gone now; a link to nothing is still there.
                Err(_) if fs::symlink_metadata(entry.path()).is_err() => continue,
                Err(error) => files.insert(name.clone(), File::Unreadable(error.to_string())),
            };
            if entry.file_type()?.is_symlink() {
                self.links
                    .extend(target_beside(path, &raw).map(|target| (name, target)));
            }
        }
        Ok(Directory::Present { marked, files })
    }

    /// Takes back what was read of these files, because they are being written.
    pub(in crate::units_dir) fn skip(&mut self, names: &BTreeSet<OsString>) {
        let Directory::Present { files, .. } = &mut self.directory else {
            return;
        };
        for (name, file) in files {
            let shown = self
                .links
                .get(name)
                .map_or(OsStr::new(name), OsString::as_os_str);
            if matches!(file, File::Content(_)) && names.contains(shown) {
                *file = File::Skipped(BEING_WRITTEN);
            }
        }
    }

    /// Whether a file was skipped because it is being written.
    pub(in crate::units_dir) fn is_unfinished(&self) -> bool {
        match &self.directory {
            Directory::Present { files, .. } => files
                .values()
                .any(|file| *file == File::Skipped(BEING_WRITTEN)),
            _ => false,
        }
    }
}

fn read(path: &Path, name: &str, unwatched: bool) -> io::Result<File> {
    let before = fs::metadata(path)?;
    if before.is_dir() {
        return Ok(File::Directory);
    }
    if !matches!(named(name), Named::Unit(_)) {
        return Ok(File::Skipped(NO_UNIT));
    }
    // Opening a pipe would wait for its other end; reading a device has no end.
    if !before.is_file() {
        return Ok(File::Unreadable("not a regular file".to_owned()));
    }
    if let Some(reason) = trust::of_file(path, &before) {
        return Ok(File::Untrusted(reason));
    }
    if unwatched && is_recent(&before) {
        return Ok(File::Skipped(BEING_WRITTEN));
    }
    let mut content = Vec::new();
    let mut file = fs::File::open(path)?;
    (&mut file)
        .take(CONTENT_MAX as u64 + 1)
        .read_to_end(&mut content)?;
    let after = file.metadata()?;
    if (after.len(), after.modified()?) != (before.len(), before.modified()?) {
        return Ok(File::Skipped(BEING_WRITTEN));
    }
    Ok(File::Content(content.into()))
}

fn is_recent(metadata: &Metadata) -> bool {
    // A time in the future is a wrong clock, not a file being written.
    let age = metadata
        .modified()
        .ok()
        .and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age < RECENT)
}

/// The file that a link shows, if it lies in the same directory.
fn target_beside(directory: &Path, link: &OsStr) -> Option<OsString> {
    let target = fs::canonicalize(directory.join(link)).ok()?;
    let directory = fs::canonicalize(directory).ok()?;
    (target.parent()? == directory).then(|| target.file_name().map(OsStr::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::unit::Content;
    use std::os::unix::fs::symlink;

    fn files(scan: &Scan) -> &BTreeMap<String, File> {
        match &scan.directory {
            Directory::Present { files, .. } => files,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_directory_is_told_from_one_that_cannot_be_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("units");
        assert_eq!(Scan::read(&path, false).directory, Directory::Missing);
        fs::write(&path, "").expect("written");
        assert!(matches!(
            Scan::read(&path, false).directory,
            Directory::Unreadable(_)
        ));
    }

    #[test]
    fn links_are_followed_and_only_regular_files_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("x@.service"), "text").expect("written");
        fs::write(at("README"), "text").expect("written");
        fs::write(at(MARKER), "").expect("written");
        fs::create_dir(at("x.service.d")).expect("made");
        symlink("x@.service", at("x@1.service")).expect("linked");
        symlink("nowhere", at("dangling.service")).expect("linked");
        symlink("/dev/zero", at("endless.service")).expect("linked");
        let scan = Scan::read(folder.path(), false);
        let text = File::Content(Content::from("text"));
        let expected = [
            ("README", File::Skipped(NO_UNIT)),
            (
                "dangling.service",
                File::Unreadable("No such file or directory (os error 2)".into()),
            ),
            (
                "endless.service",
                File::Unreadable("not a regular file".into()),
            ),
            ("x.service.d", File::Directory),
            ("x@.service", text.clone()),
            ("x@1.service", text),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, file)| (name.to_owned(), file)).into();
        assert_eq!(files(&scan), &expected);
        assert!(matches!(
            scan.directory,
            Directory::Present { marked: true, .. }
        ));
    }

    #[test]
    fn a_link_to_a_file_being_written_is_being_written() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("x@.service"), "half").expect("written");
        symlink("x@.service", folder.path().join("x@1.service")).expect("linked");
        let mut scan = Scan::read(folder.path(), false);
        assert!(!scan.is_unfinished());
        scan.skip(&["x@.service".into()].into());
        assert_eq!(files(&scan)["x@1.service"], File::Skipped(BEING_WRITTEN));
        assert!(scan.is_unfinished());
    }

    #[test]
    fn a_fresh_file_that_nobody_watched_is_looked_at_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.service");
        fs::write(&path, "half").expect("written");
        assert!(Scan::read(folder.path(), true).is_unfinished());
        let old = std::time::SystemTime::now() - RECENT;
        fs::File::open(&path)
            .and_then(|file| file.set_modified(old))
            .expect("aged");
        assert!(!Scan::read(folder.path(), true).is_unfinished());
    }
}
