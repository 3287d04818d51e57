//! How a new revision reaches the machines, and orders about it.

pub(crate) mod orders;
mod problems;
mod rollout_verbs;
pub(crate) mod rollouts;
