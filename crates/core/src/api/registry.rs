//! Whether a machine follows the registry, and how a person accepts one.

use serde::{Deserialize, Serialize};

/// Whether the machine that answers follows the registry: `GET registry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryStanding {
    /// The store revision that this was read at.
    pub registry_revision: u64,
    /// `followed`, `held`, `new` (it has no id yet) or `unknown` (it was not read yet).
    pub state: String,
    /// Why it is held, and what to do.
    pub reason: String,
    /// The cluster that the machine belongs to; empty for none.
    pub belongs_to: String,
    /// The registry's cluster id; empty for none.
    pub cluster: String,
    /// Units that would be stopped and taken off this machine, if the registry were followed.
    pub stops: Vec<String>,
    /// Units that would come to this machine.
    pub starts: Vec<String>,
    /// Units that would change on this machine.
    pub changes: Vec<String>,
}

/// Accepts the registry: `POST registry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptBody {
    /// The cluster id that was shown to the person who accepts it; empty for none.
    pub cluster: String,
}
