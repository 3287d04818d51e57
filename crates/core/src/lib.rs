//! What fleet decides, as pure functions of values.

pub mod access;
pub mod api;
pub mod directory;
pub mod explain;
pub mod keys;
pub mod machine;
pub mod moment;
pub mod place;
pub mod plan;
pub mod preview;
pub mod record;
pub mod rollout;
pub mod submission;
pub mod systemd;
pub mod trust;
pub mod unit;
