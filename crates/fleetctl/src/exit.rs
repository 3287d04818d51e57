//! Exit codes beyond success (0) and failure (1).
//!
//! They are systemctl's, so that scripts which ask either need to know one set only. Commands that fleet 1.0 had keep
//! the codes that they had there.

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;

/// A unit is not active everywhere where it belongs.
pub(crate) const NOT_ACTIVE: u8 = 3;

/// There is no such unit in the registry.
pub(crate) const NO_SUCH_UNIT: u8 = 4;
