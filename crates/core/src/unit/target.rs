//! The target state of a unit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The target state of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// The unit exists only in the registry.
    Inactive,
    /// The file is in place on every machine where the unit belongs, and systemd has loaded it.
    Loaded,
    /// The unit is loaded, and was started once.
    Launched,
}

impl TargetState {
    /// Returns the word that files, listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Loaded => "loaded",
            Self::Launched => "launched",
        }
    }

    /// Reads the word. `None` if it is another word.
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
