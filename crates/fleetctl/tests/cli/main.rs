//! fleetctl as people and scripts meet it: the built command against a fake fleetd.

mod bad_servers;
mod completion;
mod fake_fleetd;
mod man;
mod output;
mod session;
mod streams;
mod transcripts;
mod update;
mod wait;
mod watch;
