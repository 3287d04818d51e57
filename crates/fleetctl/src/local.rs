//! Unit files on this machine: the name in an argument, and the file at its path.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use fleet_core::record::CONTENT_MAX;
use fleet_core::unit::{Content, NameError, UnitName};

/// The reason why a file cannot be a unit file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {path}: {why}")]
    Unreadable { path: String, why: io::Error },
    #[error("{path} is {size} bytes long, and a unit file may have at most {CONTENT_MAX}")]
    TooLong { path: String, size: u64 },
}

/// A unit file that may be in the directory.
#[derive(Debug)]
pub(crate) struct Local {
    /// The path as it was typed, for messages.
    pub(crate) path: String,
    /// The content. `None` if there is no file.
    pub(crate) content: Result<Option<Content>, FileError>,
}

impl Local {
    /// Reads the file of `name` in the folder of `argument`.
    pub(crate) fn read(argument: &str, name: &UnitName) -> Self {
        let path = beside(argument, name);
        Self {
            content: read_file(&path),
            path,
        }
    }
}

/// Returns the unit that a name or path means, with or without the suffix `.service`.
pub(crate) fn typed_name(argument: &str) -> Result<UnitName, NameError> {
    let base = argument
        .rsplit_once('/')
        .map_or(argument, |(_folder, base)| base);
    UnitName::parse_lenient(base)
}

/// Returns the path of `name` in the folder of `argument`, spelled like the argument.
fn beside(argument: &str, name: &UnitName) -> String {
    match argument.rsplit_once('/') {
        Some((folder, _base)) => format!("{folder}/{name}"),
        None => name.to_string(),
    }
}

/// Reads a unit file. `None` if there is no file.
fn read_file(path: &str) -> Result<Option<Content>, FileError> {
    let unreadable = |why| FileError::Unreadable {
        path: path.to_owned(),
        why,
    };
    let file = match File::open(Path::new(path)) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(unreadable(why)),
    };
    let size = file.metadata().map_err(unreadable)?.len();
    let mut bytes = Vec::new();
    // A device or a growing file has no reliable size. Read at most one byte beyond the limit.
    file.take(CONTENT_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > CONTENT_MAX {
        return Err(FileError::TooLong {
            path: path.to_owned(),
            size: size.max(bytes.len() as u64),
        });
    }
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_above_the_limit_is_refused_by_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("big.service");
        std::fs::write(&path, vec![b'#'; CONTENT_MAX + 7]).expect("written");
        let path = path.to_str().expect("text");
        assert_eq!(
            read_file(path).expect_err("too long").to_string(),
            format!("{path} is 524295 bytes long, and a unit file may have at most 524288")
        );
        std::fs::write(path, vec![b'#'; CONTENT_MAX]).expect("written");
        assert!(read_file(path).is_ok());
    }

    #[test]
    fn a_name_may_be_typed_as_a_path_and_without_its_suffix() {
        for (typed, name, path) in [
            ("hello", "hello.service", "hello.service"),
            ("../u/hello", "hello.service", "../u/hello.service"),
            ("/tmp/x.timer", "x.timer", "/tmp/x.timer"),
        ] {
            let parsed = typed_name(typed).expect(typed);
            assert_eq!(parsed.as_str(), name);
            assert_eq!(beside(typed, &parsed), path);
        }
        assert!(typed_name("units/").is_err());
    }
}
