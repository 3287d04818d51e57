//! Behaviours of fleet on real systemd hosts, in five groups.
//!
//! * `units`: a unit that is submitted, or is in a units directory, does on its machines what its
//!   file says.
//! * `containers`: units that run a container, on hosts with podman.
//! * `updates`: how a new revision reaches the machines, and orders about it.
//! * `faults`: faults of hosts, network, registry and fleetd, none of which affects a unit.
//! * `access`: the command line, the API and ssh; their users, their rights, and the answers.

mod access;
mod containers;
mod faults;
mod support;
mod units;
mod updates;
