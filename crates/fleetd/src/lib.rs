//! Everything of fleet that touches the world: the store, systemd, the agent, the engine, the API.

pub mod config;
pub mod store;
pub mod systemd;
pub mod units_dir;
