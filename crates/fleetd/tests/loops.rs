//! The daemon's loops without hosts: the real agents, engines and registry code on the embedded store and the fake
//! systemd, under a clock that jumps ahead when all wait.

#[path = "loops/chance.rs"]
mod chance;
#[path = "loops/crowds.rs"]
mod crowds;
#[path = "loops/faults.rs"]
mod faults;
#[path = "loops/fleet.rs"]
mod fleet;
#[path = "loops/grants.rs"]
mod grants;
#[path = "loops/hands.rs"]
mod hands;
#[path = "loops/held.rs"]
mod held;
#[path = "loops/histories.rs"]
mod histories;
#[path = "loops/kills.rs"]
mod kills;
#[path = "loops/leaders.rs"]
mod leaders;
#[path = "loops/mail.rs"]
mod mail;
#[path = "loops/presence.rs"]
mod presence;
#[path = "loops/reports.rs"]
mod reports;
#[path = "loops/rollouts.rs"]
mod rollouts;
#[path = "loops/scheduling.rs"]
mod scheduling;
#[path = "loops/simulation/mod.rs"]
mod simulation;
#[path = "loops/stage.rs"]
mod stage;
#[path = "loops/takeovers.rs"]
mod takeovers;
#[path = "loops/together.rs"]
mod together;
#[path = "loops/twins.rs"]
mod twins;
#[path = "loops/units.rs"]
mod units;
#[path = "loops/untrusted.rs"]
mod untrusted;
#[path = "loops/versions.rs"]
mod versions;
#[path = "loops/weather.rs"]
mod weather;
