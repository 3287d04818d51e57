//! The registry as a units directory sees it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fleet_core::directory::{Fingerprint, Known};
use fleet_core::unit::{Content, TargetState, UnitName};

/// Why the registry did not take something, by what is done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It cannot be reached. Normal; everything waits, and is tried again with a back-off.
    #[error("{0}")]
    Unavailable(String),
    /// It will not take this unit. Reported; the other units go on.
    #[error("{0}")]
    Refused(String),
}

/// The registry as a units directory sees it. Every call may be repeated: one that ended with an
/// error may have been done all the same.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// What the registry has of these units; those it does not know are left out.
    async fn known(&self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Known>, PublishError>;

    /// Submits the content, as a new unit with that target state or as an update that leaves the
    /// target state alone, and makes this machine's directory an owner.
    async fn publish(
        &self,
        name: &UnitName,
        content: &Content,
        target: TargetState,
    ) -> Result<(), PublishError>;

    /// Makes this machine's directory an owner, if `content` is the newest content or `None`.
    /// Returns false if the newest content differs: another change came first. A unit that was
    /// destroyed meanwhile stays destroyed.
    async fn adopt(
        &self,
        name: &UnitName,
        content: Option<&Fingerprint>,
    ) -> Result<bool, PublishError>;

    /// Ends the ownership of this machine's directory, and destroys the unit if it has no other
    /// owner. No error if the unit or the ownership is not there.
    async fn disown(&self, name: &UnitName) -> Result<(), PublishError>;
}
