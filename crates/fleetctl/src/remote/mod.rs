//! Runs commands on other machines with the system's own `ssh`, so its keys, agent and
//! configuration are the user's.
//!
//! ```text
//!   fleetctl ---- HTTP ----> fleetd here             without --tunnel
//!   fleetctl -- ssh --> [ fleetctl fd-forward ] -- HTTP --> fleetd there      the tunnel
//!   fleetctl -- ssh [-- through the tunnel --] --> a command on a machine     ssh, journal, status
//! ```
//!
//! The machine that fleetctl runs on, known by /etc/machine-id, needs no ssh.

mod destination;
mod failure;
mod flags;
mod host_keys;
pub(crate) mod journal;
mod ssh;
mod tunnel;

use std::fs;

pub(crate) use destination::Destination;
pub(crate) use failure::SSH_FAILED;
pub(crate) use flags::Remote;
pub(crate) use ssh::{Prompts, Ssh, shell_words};
pub(crate) use tunnel::{OpenTunnel, Tunnel, TunnelError};

/// Returns whether this is the machine that fleetctl runs on.
pub(crate) fn is_here(machine_id: &str) -> bool {
    fs::read_to_string("/etc/machine-id").is_ok_and(|here| here.trim_end() == machine_id)
}
