//! Exit codes beyond success (0), failure (1) and a command line that is wrong (2).
//!
//! They are systemctl's, so that scripts which ask either need to know one set only. Commands that fleet 1.0 had keep
//! the codes that they had there.

/// A unit is not active everywhere where it belongs.
pub(crate) const NOT_ACTIVE: u8 = 3;

/// There is no such unit in the registry.
pub(crate) const NO_SUCH_UNIT: u8 = 4;
