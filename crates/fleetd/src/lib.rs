//! All parts of fleet that touch the world: the store, systemd, the agent, the engine, the API.

pub mod agent;
pub mod api;
pub mod atomic_file;
pub mod backoff;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod health;
pub mod mirror;
pub mod registry;
pub mod state_file;
pub mod store;
pub mod systemd;
pub mod units_dir;
