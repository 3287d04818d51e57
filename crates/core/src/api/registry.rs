//! Whether a machine follows the registry, and how an operator accepts one.

use serde::{Deserialize, Serialize};

/// The answer to `GET registry`: whether the answering machine follows the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryStanding {
    /// The store revision at which everything here was read.
    pub registry_revision: u64,
    /// `followed`, `held`, `new` (the registry has no id yet) or `unknown` (it was not read yet).
    pub state: String,
    /// The reason for holding it, with the next step.
    pub reason: String,
    /// The cluster that the machine belongs to; empty if none.
    pub belongs_to: String,
    /// The registry's cluster id; empty if it has none.
    pub cluster: String,
    /// The units that would stop and be removed from this machine if it followed the registry.
    pub stops: Vec<String>,
    /// The units that would be added to this machine.
    pub starts: Vec<String>,
    /// The units that would change on this machine.
    pub changes: Vec<String>,
}

/// The body of `POST registry`, which accepts the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptBody {
    /// The cluster id that was shown to the operator; empty if there was none.
    pub cluster: String,
}
