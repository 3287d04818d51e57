//! What fleet decides, as pure functions of values.

pub mod api;
pub mod directory;
pub mod keys;
pub mod machine;
pub mod place;
pub mod plan;
pub mod record;
pub mod rollout;
pub mod submission;
pub mod systemd;
pub mod trust;
pub mod unit;
