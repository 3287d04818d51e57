//! State files: values as JSON with a format number, whole or not there.

use std::fs;
use std::io;
use std::path::Path;

use fleet_core::record::{self, RecordError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic_file;

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It could not be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// The cause.
        error: io::Error,
    },
    /// An older fleetd must leave it as it is.
    #[error("{path} was written by a newer version: {error}")]
    Newer {
        /// The file.
        path: String,
        /// The cause.
        error: RecordError,
    },
    /// It is not what fleetd wrote.
    #[error("{path} is damaged: {error}")]
    Damaged {
        /// The file.
        path: String,
        /// The cause.
        error: RecordError,
    },
}

impl StateFileError {
    /// Whether a newer version wrote it.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
    }
}

/// Reads a file that [`save`] wrote; none if it is not there.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateFileError> {
    let name = || path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => match record::decode(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error @ RecordError::Newer(_)) => Err(StateFileError::Newer {
                path: name(),
                error,
            }),
            Err(error) => Err(StateFileError::Damaged {
                path: name(),
                error,
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateFileError::Unreadable {
            path: name(),
            error,
        }),
    }
}

/// Writes a value as a file with a format number, in place of what was there.
pub fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    atomic_file::replace(path, &record::encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        assert!(load::<Vec<String>>(&path).expect("absent").is_none());
        fs::write(&path, "{half").expect("writes");
        let error = load::<Vec<String>>(&path).expect_err("damaged").to_string();
        assert!(error.contains("state.json is damaged"), "{error}");
        fs::write(&path, r#"{"format":2}"#).expect("writes");
        let error = load::<Vec<String>>(&path).expect_err("newer");
        assert!(error.is_newer());
        let text = "state.json was written by a newer version: its format is 2";
        assert!(error.to_string().contains(text), "{error}");
    }
}
