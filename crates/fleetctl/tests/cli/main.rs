//! fleetctl as people and scripts use it: the built command against a fake fleetd, and against the
//! API of the real one.

mod bad_servers;
mod cluster;
mod completion;
mod fake_fleetd;
mod foresight;
mod man;
mod output;
mod rollouts;
mod session;
mod streams;
mod transcripts;
mod update;
mod wait;
mod watch;
