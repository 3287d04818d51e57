//! The file that keeps the embedded store over a restart: all its keys, replaced as a whole.
//!
//! One header line, `fleet-registry <format> <sha1 of the rest>`, then JSON with the values in
//! base64.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::atomic_file;
use crate::store::{Entry, Result, Snapshot, StoreError};

const MAGIC: &str = "fleet-registry";
/// The format of the file. It increases whenever an older fleetd could not read the new one.
const FORMAT: u32 = 1;

/// Why the embedded store cannot be opened. None of these is normal, and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or the lock beside it cannot be read or created.
    #[error("registry file {path}: {cause}", path = path.display())]
    Io {
        /// The registry file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// Another process uses the file. A second writer would undo commits that the first one
    /// acknowledged.
    #[error("registry file {path}: another process uses it; stop the other fleetd first", path = path.display())]
    InUse {
        /// The registry file.
        path: PathBuf,
    },
    /// Another version of fleetd wrote the file.
    #[error(
        "registry file {path}: it has format {found} and this fleetd reads format {FORMAT}; \
         run the fleetd that wrote it",
        path = path.display()
    )]
    Format {
        /// The registry file.
        path: PathBuf,
        /// The format that its header names.
        found: String,
    },
    /// The content is not what fleetd wrote.
    #[error(
        "registry file {path}: damaged: {cause}; restore it from a backup, or move it away \
         to start with an empty registry",
        path = path.display()
    )]
    Damaged {
        /// The registry file.
        path: PathBuf,
        /// The damage.
        cause: String,
    },
}

/// The place of one snapshot, locked against other processes as long as this value lives.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    path: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Body {
    revision: u64,
    entries: BTreeMap<String, Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    created: u64,
    modified: u64,
    value: String,
}

impl SnapshotFile {
    /// Locks the file for this process, and reads it. A file that does not exist is an empty store.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Snapshot>), OpenError> {
        let io = |cause| OpenError::Io {
            path: path.to_owned(),
            cause,
        };
        // Each commit replaces the file, so the lock needs another file that stays.
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // This does not follow a link, nor wait for a pipe.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(beside(path, ".lock"))
            .map_err(io)?;
        lock.try_lock().map_err(|refused| match refused {
            TryLockError::WouldBlock => OpenError::InUse {
                path: path.to_owned(),
            },
            TryLockError::Error(cause) => io(cause),
        })?;
        let snapshot = match fs::read(path) {
            Ok(bytes) => Some(decode(path, &bytes)?),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(io(cause)),
        };
        let file = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        Ok((file, snapshot))
    }

    /// Writes the snapshot to disk. Blocks. After `Rejected` the old snapshot is in place; after
    /// `Unavailable` either one may be.
    pub(super) fn save(&self, snapshot: &Snapshot) -> Result<()> {
        atomic_file::swap(&self.path, &encode(snapshot)).map_err(|cause| {
            StoreError::Rejected(format!(
                "registry file {}: {cause}; make room or fix it, then try again",
                self.path.display()
            ))
        })?;
        // Without this, a power cut may restore the old file after the commit was acknowledged.
        atomic_file::sync_directory(&self.path).map_err(|cause| {
            StoreError::Unavailable(format!("registry file {}: {cause}", self.path.display()))
        })
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let row = |entry: &Entry| Row {
        created: entry.created,
        modified: entry.modified,
        value: BASE64.encode(&entry.value),
    };
    let body = Body {
        revision: snapshot.revision,
        entries: (snapshot.entries.iter())
            .map(|(key, entry)| (key.clone(), row(entry)))
            .collect(),
    };
    let json = serde_json::to_string(&body).expect("text and numbers are always JSON");
    format!("{MAGIC} {FORMAT} {}\n{json}", checksum(json.as_bytes())).into_bytes()
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Snapshot, OpenError> {
    let damaged = |cause: &str| OpenError::Damaged {
        path: path.to_owned(),
        cause: cause.to_owned(),
    };
    let text = str::from_utf8(bytes).map_err(|_| damaged("not text"))?;
    let (header, json) = text.split_once('\n').ok_or_else(|| damaged("no header"))?;
    let words: Vec<_> = header.split(' ').collect();
    let [MAGIC, format, sum] = words[..] else {
        return Err(damaged("not the header of a registry file"));
    };
    if format != FORMAT.to_string() {
        return Err(OpenError::Format {
            path: path.to_owned(),
            found: format.to_owned(),
        });
    }
    if sum != checksum(json.as_bytes()) {
        return Err(damaged("its checksum is wrong"));
    }
    let body: Body = serde_json::from_str(json).map_err(|cause| damaged(&cause.to_string()))?;
    let entry = |row: Row| {
        Ok(Entry {
            value: BASE64
                .decode(row.value)
                .map_err(|cause| damaged(&cause.to_string()))?
                .into(),
            created: row.created,
            modified: row.modified,
            // Keys under a lease are not written to disk.
            lease: None,
        })
    };
    Ok(Snapshot {
        revision: body.revision,
        entries: (body.entries.into_iter())
            .map(|(key, row)| Ok((key, entry(row)?)))
            .collect::<Result<_, OpenError>>()?,
    })
}

fn checksum(bytes: &[u8]) -> String {
    (Sha1::digest(bytes).iter())
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
