//! Code that several behaviours share.

pub(crate) mod looking;
pub(crate) mod workload;
