//! The values of the registry: one type for each kind, as JSON with a format number.
//!
//! Everything read from the registry is untrusted. [`decode`] turns a bad value into an error with
//! the cause, and the reader leaves only that unit or machine alone.

mod machine;
mod report;
mod rollout;
mod unit;
mod unknown;

use serde::{Deserialize, Serialize};

pub use self::machine::{Known, MachineRecord, MetadataRecord};
pub use self::report::{
    Listed, MachineReport, ReportBase, ReportChanges, UnitReport, UnitReports, Units, decode_report,
};
pub use self::rollout::{Event, EventKind, Grant, Progress};
pub use self::unit::{
    Candidate, Outcome, Owner, OwnerRecord, Past, Revision, SEEN_MAX, SeenRecord, UnitRecord,
    must_restart, origin,
};
pub use self::unknown::encode_over;
use crate::machine::MachineId;
use crate::unit::UnitName;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The number of older revisions that a unit keeps.
pub const HISTORY_KEPT: usize = 10;

/// The largest unit file accepted, in bytes. etcd refuses a request above 1.5 MiB, and a unit's
/// record may hold two revisions.
pub const CONTENT_MAX: usize = 512 * 1024;

/// The reason why a registry value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer version wrote it.
    #[error("its format is {0}, and this version reads up to {FORMAT}: upgrade fleetd here")]
    Newer(u32),
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// A report's base is missing, or has another number.
    #[error(
        "the base beside it is not the one that it was written over: restart fleetd on that machine"
    )]
    NoBase,
}

/// Returns a value as the registry holds it.
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

/// The first bytes of a value written by [`encode`].
const OURS: &[u8] = br#"{"format":1,"#;

/// Reads a value back.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    // Nearly every value begins so. Checking the beginning avoids parsing it twice.
    if !bytes.starts_with(OURS) {
        let Version { format } = serde_json::from_slice(bytes)?;
        if format > FORMAT {
            return Err(RecordError::Newer(format));
        }
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The identity of a registry: `cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The id, 32 random hexadecimal digits. It is printed in many places, so only ASCII letters
    /// and digits are accepted.
    #[serde(deserialize_with = "cluster_id")]
    pub id: String,
}

fn cluster_id<'de, D: serde::Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let id = String::deserialize(input)?;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain && (1..=64).contains(&id.len()) {
        return Ok(id);
    }
    Err(serde::de::Error::custom("it is no cluster id"))
}

/// The record that an operator accepted this registry for machines that held it: `acceptance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptanceRecord {
    /// The cluster that these machines belonged to.
    pub from: String,
    /// The id of the registry that was accepted.
    pub cluster: String,
    /// When it was accepted, in milliseconds since 1970. It is later than every earlier acceptance;
    /// on a circle, see `trust::judge`.
    pub at: u64,
    /// The user or program that accepted it.
    pub by: String,
}

/// The unit that was destroyed last: `units/+destroyed`, written by the commit that destroyed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestroyedRecord {
    /// The unit.
    pub unit: UnitName,
}

/// The claim of the leading engine: `leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The machine whose engine leads.
    pub machine: MachineId,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::unit::{Content, TargetState};

    #[test]
    fn cluster_id_with_other_characters_is_refused() {
        for (id, is_read) in [
            ("0123456789abcdef0123456789abcdef", true),
            ("zz\nMAINPID=1", false),
            ("z\u{fc}", false),
            ("", false),
        ] {
            let bytes = encode(&ClusterRecord { id: id.to_owned() });
            assert_eq!(decode::<ClusterRecord>(&bytes).is_ok(), is_read, "{id:?}");
        }
    }

    fn record() -> UnitRecord {
        UnitRecord {
            target: TargetState::Launched,
            stable: Revision {
                number: 3,
                at: 1_700_000_000_000,
                content: Content::from("[Service]\n"),
                restarts: 0,
            },
            candidate: None,
            last: None,
            owners: BTreeSet::from([
                Owner::Api,
                Owner::Directory(
                    MachineId::parse("190c6f8fbbd25efb88aad49e6c499b79").expect("valid"),
                ),
            ]),
        }
    }

    #[test]
    fn record_is_readable_json_with_a_format() {
        insta::assert_snapshot!(String::from_utf8(encode(&record())).expect("text"), @r#"{"format":1,"target":"launched","stable":{"number":3,"at":1700000000000,"content":"[Service]\n"},"owners":["api",{"directory":"190c6f8fbbd25efb88aad49e6c499b79"}]}"#);
        assert_eq!(
            decode::<UnitRecord>(&encode(&record())).expect("reads"),
            record()
        );
    }

    #[test]
    fn encoded_value_begins_as_the_reader_expects() {
        assert!(encode(&record()).starts_with(OURS));
        assert!(OURS.starts_with(format!("{{\"format\":{FORMAT},").as_bytes()));
    }

    #[test]
    fn newer_format_is_refused_by_its_number() {
        let error = decode::<UnitRecord>(br#"{"format":2,"what":"ever"}"#).expect_err("newer");
        assert_eq!(
            error.to_string(),
            "its format is 2, and this version reads up to 1: upgrade fleetd here"
        );
        assert!(decode::<UnitRecord>(b"\xff\x00").is_err());
    }
}
