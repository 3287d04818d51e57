//! A line of a unit file as fleet 1.0 reads it. Its hash and its API are made of these.

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
