//! Verbs of kubectl, systemctl, docker and nomad, and the equivalent commands of fleetctl.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

pub(super) const FOREIGN: &[(&str, &str)] = &[
    ("annotate", "metadata"),
    ("apply", "start --replace"),
    ("create", "start"),
    ("delete", "destroy"),
    ("describe", "status"),
    ("down", "destroy"),
    ("exec", "ssh"),
    ("get", "list-units"),
    ("history", "rollout history"),
    ("is-active", "status"),
    ("kill", "stop"),
    ("label", "metadata"),
    ("log", "journal"),
    ("logs", "journal"),
    ("nodes", "list-machines"),
    ("pause", "rollout pause"),
    ("ps", "list-units"),
    ("reload", "restart"),
    ("resume", "rollout resume"),
    ("revert", "rollout undo"),
    ("rm", "destroy"),
    ("rollback", "rollout undo"),
    ("run", "start"),
    ("show", "status"),
    ("top", "status"),
    ("undo", "rollout undo"),
    ("up", "start"),
];

/// Returns the error with our command in place of the foreign verb. Other errors stay as they are.
pub(crate) fn suggest(error: clap::Error, command: &mut Command) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let Some((_, ours)) = FOREIGN.iter().find(|(verb, _)| verb == typed) else {
        return error;
    };
    // clap judges the verbs below `rollout`.
    if command.find_subcommand(typed).is_some() {
        return error;
    }
    let message = format!("there is no command '{typed}'; use `fleetctl {ours}`");
    command.error(ErrorKind::InvalidSubcommand, message)
}
