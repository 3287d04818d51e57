//! A line of a unit file as fleet 1.0 reads it: what its hash is made of, and what its API carries.

use serde::{Deserialize, Serialize};

/// One line of a unit file, as the original's API carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitOption {
    /// What stands before `=`.
    pub name: String,
    /// What stands in `[...]`.
    pub section: String,
    /// What stands behind `=`.
    pub value: String,
}
