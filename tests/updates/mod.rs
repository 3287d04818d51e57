//! How a new revision reaches the machines, and orders about it.

mod narrowing;
pub(crate) mod orders;
mod problems;
mod rollout_verbs;
pub(crate) mod rollouts;
