//! Whether others than root may change what a units directory holds: what lies there runs as root
//! on every machine.
//!
//! The rule is sshd's `StrictModes`: the file, its directory and every directory above belong to
//! root, and no other user may write to them. A directory with the sticky bit, such as `/tmp`, lets
//! no other user replace a file of root.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Returns why a directory is not trusted: for its own sake, or for one above it. `None` also if it
/// is missing.
pub(super) fn of_directory(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).ok()?;
    // Where a link leads, and where the link itself lies.
    let places = real.ancestors().chain(path.ancestors().skip(1));
    let mut found = places.filter_map(|place| {
        let metadata = fs::metadata(place).ok()?;
        weakness(place, &metadata)
    });
    found.next()
}

/// Returns why a file of a trusted directory is not trusted. `metadata` is that of the file itself,
/// links followed.
pub(super) fn of_file(path: &Path, metadata: &Metadata) -> Option<String> {
    if let Some(weakness) = weakness(path, metadata) {
        return Some(weakness);
    }
    let is_link = fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink());
    if !is_link {
        return None;
    }
    let real = fs::canonicalize(path).ok()?;
    of_directory(real.parent()?)
}

fn weakness(path: &Path, metadata: &Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    let me = rustix::process::geteuid().as_raw();
    let path = path.display();
    if owner != 0 && owner != me {
        return Some(format!(
            "{path} belongs to uid {owner}, who may change what runs as root: chown root"
        ));
    }
    if metadata.is_dir() && mode & STICKY != 0 {
        return None;
    }
    let group_writes = mode & GROUP_WRITES != 0 && metadata.gid() != 0;
    (group_writes || mode & OTHERS_WRITE != 0).then(|| {
        format!(
            "{path} has mode {:04o}, so that others than root may change what runs as root: chmod go-w",
            mode & 0o7777
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        let folder = tempfile::tempdir().expect("a folder");
        let units = folder.path().join("above/units");
        fs::create_dir_all(&units).expect("made");
        let file = units.join("a.service");
        fs::write(&file, "x").expect("written");
        let metadata = || fs::metadata(&file).expect("there");
        assert_eq!(
            (of_directory(&units), of_file(&file, &metadata())),
            (None, None)
        );

        chmod(&file, 0o666);
        let told = of_file(&file, &metadata()).expect("not trusted");
        assert!(told.contains("a.service has mode 0666"), "{told}");
        chmod(&file, 0o644);
        for (mode, trusted) in [(0o777, false), (0o1777, true), (0o755, true)] {
            chmod(&folder.path().join("above"), mode);
            assert_eq!(of_directory(&units).is_none(), trusted, "{mode:o}");
        }
        let link = units.join("link.service");
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("made");
        fs::write(elsewhere.join("b.service"), "x").expect("written");
        symlink(elsewhere.join("b.service"), &link).expect("linked");
        assert_eq!(of_file(&link, &metadata()), None);
        chmod(&elsewhere, 0o777);
        assert!(of_file(&link, &metadata()).is_some());
    }

    #[test]
    fn what_belongs_to_a_user_is_not_trusted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.service");
        fs::write(&file, "x").expect("written");
        if chown(&file, Some(12345), None).is_err() {
            return eprintln!("skipped: only root gives files away");
        }
        let told = of_file(&file, &fs::metadata(&file).expect("there")).expect("not trusted");
        assert!(told.contains("belongs to uid 12345"), "{told}");
    }

    #[test]
    fn a_missing_directory_is_trusted() {
        assert_eq!(of_directory(Path::new("/nonexistent/units")), None);
    }
}
