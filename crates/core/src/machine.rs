//! Machines: their identity, metadata and scheduling.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest metadata key, in bytes.
pub const METADATA_KEY_MAX: usize = 128;
/// The longest metadata value, in bytes.
pub const METADATA_VALUE_MAX: usize = 1024;
/// The largest number of metadata keys of a machine, for run time and for fleet.conf each.
pub const METADATA_MAX: usize = 128;

/// Returns why a key or its value is too long. `None` if both fit.
pub fn too_long(key: &str, value: &str) -> Option<String> {
    let longer = |what, text: &str, max| {
        (text.len() > max)
            .then(|| format!("metadata {what} is {} bytes long (max {max})", text.len()))
    };
    longer("key", key, METADATA_KEY_MAX).or_else(|| longer("value", value, METADATA_VALUE_MAX))
}

/// A machine's id: the 32 lower-case hexadecimal digits of `/etc/machine-id`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

/// The error for a text that is no machine id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("machine id \"{0}\" is not 32 lower-case hexadecimal digits")]
pub struct MachineIdError(String);

impl MachineId {
    /// Reads an id. Surrounding blanks, such as the file's newline, are dropped.
    pub fn parse(text: &str) -> Result<Self, MachineIdError> {
        let id = text.trim();
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if id.len() == 32 && id.bytes().all(hex) {
            Ok(Self(id.to_owned()))
        } else {
            // The text may be a whole wrong file: its first characters are enough to recognise it.
            Err(MachineIdError(id.chars().take(40).collect()))
        }
    }

    /// Returns all 32 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first eight digits, which listings show before `...`.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MachineId {
    type Error = MachineIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> Self {
        id.0
    }
}

/// The metadata of a machine, which `MachineMetadata=` of a unit selects by.
pub type Metadata = BTreeMap<String, String>;

/// Metadata set at run time: a value replaces the machine's own, `None` hides it.
pub type MetadataOverlay = BTreeMap<String, Option<String>>;

/// Returns a machine's own metadata with the run-time metadata applied.
pub fn overlay(own: &Metadata, set: &MetadataOverlay) -> Metadata {
    let mut metadata = own.clone();
    for (key, value) in set {
        match value {
            Some(value) => metadata.insert(key.clone(), value.clone()),
            None => metadata.remove(key),
        };
    }
    metadata
}

/// The id of a session, one uninterrupted presence of a machine: its lease's id.
pub type SessionId = i64;

/// The limits on starting units on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// Every unit that belongs there may start.
    #[default]
    Normal,
    /// No unit is started or updated; running units continue.
    Cordoned,
    /// No unit starts; running units are stopped.
    Drained,
}

impl Scheduling {
    /// Returns whether units may start without limit.
    pub fn is_normal(&self) -> bool {
        *self == Self::Normal
    }

    /// Returns the word that listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Cordoned => "cordoned",
            Self::Drained => "drained",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_id_is_read_as_the_file_has_it() {
        let id = MachineId::parse("190c6f8fbbd25efb88aad49e6c499b79\n").expect("valid");
        assert_eq!(id.short(), "190c6f8f");
        for bad in [
            "",
            "190c6f8f",
            "190C6F8FBBD25EFB88AAD49E6C499B79",
            "../../../../../../../../../../ab",
            "uninitialized",
        ] {
            assert!(MachineId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn removed_metadata_hides_the_machines_own() {
        let own = Metadata::from([("az".into(), "1".into()), ("disk".into(), "ssd".into())]);
        let set = MetadataOverlay::from([
            ("az".into(), None),
            ("disk".into(), Some("hdd".into())),
            ("gpu".into(), Some("yes".into())),
        ]);
        let expected =
            Metadata::from([("disk".into(), "hdd".into()), ("gpu".into(), "yes".into())]);
        assert_eq!(overlay(&own, &set), expected);
    }
}
