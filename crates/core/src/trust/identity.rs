//! The identity of a registry: it distinguishes one from another.

use crate::keys;
use crate::record::{self, AcceptanceRecord, ClusterRecord, RecordError};

/// The identity of a registry, which distinguishes it from others and from its own past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub cluster: ClusterKey,
    /// The newest acceptance, and the store revision that wrote it.
    pub acceptance: Option<(AcceptanceRecord, u64)>,
    /// Why the newest acceptance cannot be read, where a newer version wrote it.
    pub newer_acceptance: Option<String>,
    /// The store revision of all of it.
    pub revision: u64,
    /// The newest revision that instructed the machine ([`keys::instructs`]); `None` if it was not
    /// read.
    pub instructed: Option<u64>,
}

/// The `cluster` key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClusterKey {
    /// There is none.
    #[default]
    Absent,
    /// There is one.
    Is {
        /// The id.
        id: String,
        /// The store revision that made the key.
        made: u64,
    },
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl ClusterKey {
    /// The store revision that made it, if it can be read.
    pub fn made(&self) -> Option<u64> {
        match self {
            Self::Is { made, .. } => Some(*made),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }

    /// The id, if it can be read.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Is { id, .. } => Some(id),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

impl Identity {
    /// The keys that it is made of.
    pub const KEYS: [&'static str; 2] = [keys::CLUSTER, keys::ACCEPTANCE];

    /// Takes the present value of one of these keys: its bytes, and the store revisions that
    /// created the key and wrote the value. `None` if it is missing. Answers none for any other
    /// key. A value that cannot be read counts as missing.
    pub fn take(
        &mut self,
        key: &str,
        entry: Option<(&[u8], u64, u64)>,
    ) -> Option<Result<(), RecordError>> {
        match key {
            keys::CLUSTER => {
                let Some((bytes, made, _)) = entry else {
                    self.cluster = ClusterKey::Absent;
                    return Some(Ok(()));
                };
                let read = record::decode::<ClusterRecord>(bytes);
                self.cluster = match &read {
                    Ok(record) => ClusterKey::Is {
                        id: record.id.clone(),
                        made,
                    },
                    Err(error) => ClusterKey::Unreadable(error.to_string()),
                };
                Some(read.map(drop))
            }
            keys::ACCEPTANCE => {
                self.acceptance = None;
                self.newer_acceptance = None;
                let Some((bytes, _, written)) = entry else {
                    return Some(Ok(()));
                };
                let read = record::decode::<AcceptanceRecord>(bytes);
                if let Err(error @ RecordError::Newer(_)) = &read {
                    self.newer_acceptance = Some(error.to_string());
                }
                Some(read.map(|record| self.acceptance = Some((record, written))))
            }
            _ => None,
        }
    }

    /// When the newest acceptance was made; 0 without one.
    pub(super) fn accepted_at(&self) -> u64 {
        let acceptance = self.acceptance.as_ref();
        acceptance.map_or(0, |(record, _)| record.at)
    }

    pub(super) fn is_of(&self, cluster: &str) -> bool {
        self.cluster.id() == Some(cluster)
    }
}
