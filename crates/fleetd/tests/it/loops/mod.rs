//! The daemon's loops without hosts: the real agents, engines and registry code on the embedded
//! store and the fake systemd, under a clock that jumps ahead when all wait.

mod between;
#[allow(dead_code, reason = "the simulation uses more of it")]
mod crowds;
mod directories;
mod faults;
#[allow(dead_code, reason = "the simulation uses more of it")]
mod fleet;
mod grants;
mod hands;
mod held;
mod histories;
mod kills;
mod leaders;
mod mail;
mod presence;
mod reports;
mod rollouts;
mod scheduling;
mod shutdowns;
mod stage;
mod takeovers;
mod together;
mod twins;
mod units;
mod untrusted;
mod versions;
#[allow(dead_code, reason = "the simulation uses more of it")]
mod weather;
