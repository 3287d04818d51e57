//! Configuration: from fleet.conf, the environment and flags to the settings that fleetd runs with.
//!
//! Three types, one for each step, so that nothing half-parsed leaves this module:
//!
//! ```text
//! file, environment, flags -> Fragment  what one source says, and where
//!                          -> Inputs    merged: file < environment < flags
//!                          -> Settings  typed, validated, fitting each other
//! ```
//!
//! Names and meanings of the options are in one table, [`options`]. All problems are collected
//! before they are reported, so that a person can fix them at once.

pub mod args;
pub mod check;
pub mod fragment;
pub mod inputs;
pub mod options;
mod settings;
mod values;

use std::fmt;

pub use args::Args;
pub use inputs::Inputs;
pub use settings::{Settings, TlsFiles};

/// The file that is read unless `--config` names another.
pub const DEFAULT_FILE: &str = "/etc/fleet/fleet.conf";

/// The exit code for an unusable configuration: `EX_CONFIG` of sysexits.h.
/// `RestartPreventExitStatus=` of the service names it, because a restart does not fix a file.
pub const EX_CONFIG: u8 = 78;

/// A sentence that names a problem, its place, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

/// A sentence about a valid setting that may not do what its author expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An unusable configuration: exit with [`EX_CONFIG`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// All problems; at least one.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
