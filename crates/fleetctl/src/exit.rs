//! Exit codes beyond success (0) and failure (1).
//!
//! They are systemctl's, so that scripts which ask either need to know one set only. Commands that
//! fleet 1.0 had keep the codes that they had there.

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;

/// A unit is not active everywhere where it belongs.
pub(crate) const NOT_ACTIVE: u8 = 3;

/// `status` without units: there are problems.
pub(crate) const PROBLEMS: u8 = 3;

/// There is no such unit in the registry.
pub(crate) const NO_SUCH_UNIT: u8 = 4;

/// `plan`, `diff`: something would change.
pub(crate) const CHANGES: u8 = 1;

/// `plan`, `diff`: it is not known whether something would change, or the file would be refused.
pub(crate) const TROUBLE: u8 = 3;

/// A rollout goes on.
pub(crate) const ROLLING: u8 = 5;

/// A rollout is paused, and waits for a person.
pub(crate) const PAUSED: u8 = 6;

/// The newest revision was, or is being, rolled back.
pub(crate) const ROLLED_BACK: u8 = 7;
