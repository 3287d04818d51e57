//! What fleet decides, as pure functions of values.

pub mod api;
pub mod directory;
pub mod keys;
pub mod machine;
pub mod record;
pub mod systemd;
pub mod unit;
