//! What the registry holds: one type for each kind of value, as JSON with a format number.
//!
//! Everything read from the registry is untrusted: [`decode`] turns a bad value into an error that names
//! what is wrong, and the reader leaves that one unit or machine alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::{MachineId, Metadata, MetadataOverlay};
use crate::unit::{Content, UnitName};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// How many older revisions of a unit are kept.
pub const HISTORY_KEPT: usize = 10;

/// The largest unit file accepted, in bytes. etcd refuses a request above 1.5 MiB, and a unit's record
/// may carry two revisions.
pub const CONTENT_MAX: usize = 512 * 1024;

/// A registry value that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer version.
    #[error("its format is {0}, and this version reads up to {FORMAT}: upgrade fleetd here")]
    Newer(u32),
    /// Not what it should be.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// Writes a value as the registry holds it.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        format: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    let versioned = Versioned {
        format: FORMAT,
        value,
    };
    serde_json::to_vec(&versioned).expect("records are maps with text keys")
}

/// Reads a value back.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = serde_json::from_slice(bytes)?;
    if format > FORMAT {
        return Err(RecordError::Newer(format));
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// What is wanted of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// In the registry only.
    Inactive,
    /// Its file is in place on every machine it belongs to, and systemd knows it.
    Loaded,
    /// Loaded, and started once.
    Launched,
}

impl TargetState {
    /// The word that files, listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Loaded => "loaded",
            Self::Launched => "launched",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Inactive, Self::Loaded, Self::Launched]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One version of a unit file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Counts from 1 for each unit.
    pub number: u64,
    /// When it was submitted, in milliseconds since 1970; for showing only.
    pub at: u64,
    /// The unit file.
    pub content: Content,
}

/// Who wants a unit to exist. A unit is destroyed with its last owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Somebody submitted it over the API.
    Api,
    /// It lies in that machine's units directory.
    Directory(MachineId),
}

/// A unit: `units/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// What is wanted of it.
    pub target: TargetState,
    /// The revision that every machine runs.
    pub stable: Revision,
    /// The revision being rolled out, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Revision>,
    /// Who wants it to exist.
    pub owners: BTreeSet<Owner>,
}

impl UnitRecord {
    /// The newest revision: the candidate if there is one.
    pub fn newest(&self) -> &Revision {
        self.candidate.as_ref().unwrap_or(&self.stable)
    }
}

/// Which registry this is: `cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// 32 random hexadecimal digits.
    pub id: String,
}

/// A machine's presence: `machines/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// The address that listings show.
    pub primary_ip: String,
    /// From fleet.conf; what was set at run time is kept apart, in [`MetadataRecord`].
    pub metadata: Metadata,
    /// The version of fleetd there.
    pub version: String,
}

/// Set for a machine at run time: `metadata/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataRecord {
    /// Laid over the machine's own metadata.
    pub set: MetadataOverlay,
}

/// The engines' claim: `leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The machine whose engine leads.
    pub machine: MachineId,
}

/// What one machine's systemd says of fleet's units there: `reports/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// The units whose files fleet has put there.
    pub units: BTreeMap<UnitName, UnitReport>,
    /// What is wrong there, and with what: a unit, a file, the state directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<String, String>,
}

/// One unit of a [`MachineReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitReport {
    /// systemd's load state, such as `loaded`.
    pub load: String,
    /// systemd's active state, such as `active`.
    pub active: String,
    /// systemd's sub state, such as `running`.
    pub sub: String,
    /// The revision whose file is in place.
    pub revision: u64,
    /// That revision's compatible hash.
    pub hash: String,
    /// When systemd last changed its state, in milliseconds since 1970; 0 if it never did.
    pub since: u64,
    /// How often systemd restarted it by itself (`NRestarts`).
    #[serde(default)]
    pub restarts: u32,
    /// systemd's `Result`, such as `success` or `exit-code`; empty for kinds that have none.
    #[serde(default)]
    pub result: String,
    /// Whether fleet has started it there. Nothing else tells a oneshot that ran from one that is only loaded:
    /// systemd forgets both at once.
    #[serde(default)]
    pub launched: bool,
    /// Whether it does what it should.
    pub ready: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> UnitRecord {
        UnitRecord {
            target: TargetState::Launched,
            stable: Revision {
                number: 3,
                at: 1_700_000_000_000,
                content: Content::from("[Service]\n"),
            },
            candidate: None,
            owners: BTreeSet::from([
                Owner::Api,
                Owner::Directory(
                    MachineId::parse("190c6f8fbbd25efb88aad49e6c499b79").expect("valid"),
                ),
            ]),
        }
    }

    #[test]
    fn a_record_is_readable_json_with_a_format() {
        insta::assert_snapshot!(String::from_utf8(encode(&record())).expect("text"), @r#"{"format":1,"target":"launched","stable":{"number":3,"at":1700000000000,"content":"[Service]\n"},"owners":["api",{"directory":"190c6f8fbbd25efb88aad49e6c499b79"}]}"#);
        assert_eq!(
            decode::<UnitRecord>(&encode(&record())).expect("reads"),
            record()
        );
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let error = decode::<UnitRecord>(br#"{"format":2,"what":"ever"}"#).expect_err("newer");
        assert_eq!(
            error.to_string(),
            "its format is 2, and this version reads up to 1: upgrade fleetd here"
        );
        assert!(decode::<UnitRecord>(b"\xff\x00").is_err());
    }
}
