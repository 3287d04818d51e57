//! A line of a unit file as fleet 1.0 reads it: what its hash is made of, and what its API carries.

use serde::{Deserialize, Serialize};

/// One line of a unit file, as fleet 1.0's API carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitOption {
    /// The name before `=`.
    pub name: String,
    /// The section in `[...]`.
    pub section: String,
    /// The value after `=`.
    pub value: String,
}
