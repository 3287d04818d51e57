//! How a new revision reaches the machines, and what people order about it.

pub(crate) mod orders;
mod problems;
mod rollout_verbs;
pub(crate) mod rollouts;
