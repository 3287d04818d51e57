//! What a units directory last published, on disk: `directory.json` in the state directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fleet_core::directory::Published;
use fleet_core::machine::MachineId;
use fleet_core::record::{decode, encode};
use serde::{Deserialize, Serialize};

use crate::atomic_file;

#[derive(Serialize, Deserialize)]
struct OnDisk {
    /// Of which directory this speaks. Another one starts afresh: its files say nothing of these
    /// units.
    directory: PathBuf,
    /// The machine that published it. None if an older version wrote this, or the machine is not an
    /// owner yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<MachineId>,
    #[serde(flatten)]
    published: Published,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) published: Published,
    /// Whether another machine published it: this one has another id now, or its disk is a copy.
    pub(super) is_anothers: bool,
}

/// Reads what `directory` last published; nothing if there is no file, or it speaks of another
/// directory.
///
/// An error says what is wrong and what to do. It must not be taken for "nothing published": then
/// every file would be published over what the registry has.
pub(super) fn load(path: &Path, directory: &Path, machine: &MachineId) -> Result<Loaded, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
        Err(error) => return Err(format!("cannot be read: {error}; nothing is published")),
    };
    let on_disk: OnDisk = decode(&bytes).map_err(|error| {
        format!("{error}. Nothing is published; restore the file, or remove it to start over from what the registry has")
    })?;
    if on_disk.directory == directory {
        // An older version wrote no machine: to own again what is owned changes nothing.
        let is_anothers = on_disk.machine.as_ref() != Some(machine);
        Ok(Loaded {
            published: on_disk.published,
            is_anothers,
        })
    } else {
        tracing::warn!(
            "another units directory than {}: the units of that one are kept as they are",
            on_disk.directory.display()
        );
        Ok(Loaded::default())
    }
}

/// Writes it so that a crash at any moment leaves the old or the new state, never a part.
pub(super) fn save(
    path: &Path,
    directory: &Path,
    machine: Option<MachineId>,
    published: &Published,
) -> io::Result<()> {
    let bytes = encode(&OnDisk {
        directory: directory.to_owned(),
        machine,
        published: published.clone(),
    });
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    atomic_file::replace(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::directory::{Fingerprint, Last};
    use fleet_core::unit::{Content, UnitName};

    fn published() -> Published {
        let name = UnitName::parse("a.service").expect("valid");
        let last = Last {
            content: Fingerprint::of(&Content::from("x")),
            stale: false,
            why: None,
        };
        Published {
            marked: true,
            seen: true,
            units: [(name, last)].into(),
        }
    }

    fn machine(digit: &str) -> MachineId {
        MachineId::parse(&digit.repeat(32)).expect("valid")
    }

    fn loaded(is_anothers: bool) -> Loaded {
        Loaded {
            published: published(),
            is_anothers,
        }
    }

    fn loads(path: &Path, directory: &str, by: &str) -> Result<Loaded, String> {
        load(path, Path::new(directory), &machine(by))
    }

    fn saves(path: &Path, by: Option<&str>) {
        let saved = save(path, Path::new("/units"), by.map(machine), &published());
        saved.expect("saved");
    }

    #[test]
    fn what_is_saved_is_loaded_and_readable() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lib/directory.json");
        assert_eq!(loads(&path, "/units", "a"), Ok(Loaded::default()));
        saves(&path, Some("a"));
        assert_eq!(loads(&path, "/units", "a"), Ok(loaded(false)));
        insta::assert_snapshot!(
            fs::read_to_string(&path).expect("text"),
            @r#"{"format":1,"directory":"/units","machine":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","marked":true,"seen":true,"units":{"a.service":{"content":"11f6ad8ec52a2984abaafd7c3b516503785c2072","stale":false}}}"#
        );
    }

    #[test]
    fn another_directory_starts_afresh() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("directory.json");
        saves(&path, Some("a"));
        assert_eq!(loads(&path, "/other", "a"), Ok(Loaded::default()));
    }

    #[test]
    fn what_another_machine_published_is_known_as_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("directory.json");
        for machine in [Some("a"), None] {
            saves(&path, machine);
            assert_eq!(loads(&path, "/units", "b"), Ok(loaded(true)));
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_nothing_published() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("directory.json");
        for damaged in ["", "{", "{\"format\":1}", "{\"format\":9}"] {
            fs::write(&path, damaged).expect("written");
            let error = loads(&path, "/units", "a").expect_err(damaged);
            assert!(error.contains("Nothing is published"), "{error}");
        }
    }
}
