//! Exit codes beyond success (0) and failure (1).
//!
//! They are those of systemctl, so scripts that call either need to know only one set. Commands of
//! fleet 1.0 keep their exit codes.

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;

/// A unit is not active on every machine where it belongs.
pub(crate) const NOT_ACTIVE: u8 = 3;

/// `status` without units: the cluster has problems.
pub(crate) const PROBLEMS: u8 = 3;

/// There is no such unit in the registry.
pub(crate) const NO_SUCH_UNIT: u8 = 4;

/// `plan`, `diff`: something would change.
pub(crate) const CHANGES: u8 = 1;

/// `plan`, `diff`: fleetctl cannot determine whether anything would change, or the file would be
/// refused.
pub(crate) const TROUBLE: u8 = 3;

/// A rollout is in progress.
pub(crate) const ROLLING: u8 = 5;

/// A rollout is paused, and waits for an operator.
pub(crate) const PAUSED: u8 = 6;

/// The newest revision was rolled back, or is being rolled back.
pub(crate) const ROLLED_BACK: u8 = 7;
