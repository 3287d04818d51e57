//! Behaviours of fleet on real systemd hosts, in four rooms.
//!
//! * `units`: a unit that is submitted, or lies in a units directory, does on its machines what its
//!   file says.
//! * `updates`: how a new revision reaches the machines, and what people order about it.
//! * `faults`: hosts, network, registry and fleetd break; the units do not notice.
//! * `access`: the command line, the API and ssh; who may use them, and what they answer.

mod access;
mod containers;
mod faults;
mod support;
mod units;
mod updates;
