//! Verbs of kubectl, systemctl, docker and nomad, and the equivalent commands of fleetctl.
//!
//! They are answered and not obeyed: fleetctl has one vocabulary.

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

/// The kinds of kubectl that have a listing here.
const KINDS: &[(&[&str], &str)] = &[
    (&["ds", "daemonset", "daemonsets", "daemonsets.apps"], "ds"),
    (&["no", "node", "nodes"], "node"),
    (&["po", "pod", "pods", "all"], "pod"),
    (&["ev", "event", "events"], "event"),
];

/// Returns what does the same as words of kubectl, such as `get ds`; `None` if the verb alone
/// decides.
fn kubectl(verb: &str, words: &[String]) -> Option<String> {
    // A file may stand anywhere: `apply -f app.yaml`, `apply --filename=app.yaml`.
    let file = words.iter().enumerate().find_map(|(at, word)| {
        match word.as_str() {
            "-f" | "--filename" => words.get(at + 1).map(String::as_str),
            word => word.strip_prefix("--filename=").or(word.strip_prefix("-f")),
        }
        .filter(|file| !file.is_empty())
    });
    let plain: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|it| !it.starts_with('-'))
        .collect();
    let (typed, name) = match plain.as_slice() {
        // `ds/app-a` stands for `ds app-a`.
        [one, ..] if one.contains('/') => {
            one.split_once('/').map(|(kind, name)| (kind, Some(name)))?
        }
        [kind, rest @ ..] => (*kind, rest.first().copied()),
        [] => ("", None),
    };
    let kind = KINDS.iter().find(|(names, _)| names.contains(&typed));
    let kind = kind.map(|(_, kind)| *kind);
    let unit = name.unwrap_or("UNIT");
    Some(match (verb, kind, file) {
        ("create", _, Some(file)) => format!("start {file}"),
        ("apply" | "replace", _, Some(file)) => format!("start --replace {file}"),
        ("delete", _, Some(file)) => {
            let base = file.rsplit('/').next().unwrap_or(file);
            let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
            format!("destroy {stem}")
        }
        ("get", Some("ds"), _) if name.is_some() => format!("status {unit}"),
        ("get", Some("ds"), _) => "list-globals".to_owned(),
        ("get", Some("node"), _) => "list-machines".to_owned(),
        ("get", Some("pod"), _) => "list-units".to_owned(),
        ("get", Some("event"), _) => "events".to_owned(),
        ("delete", Some("ds"), _) => format!("destroy {unit}"),
        ("delete", Some("pod"), _) => "restart UNIT".to_owned(),
        ("describe", Some("ds"), _) => format!("status {unit}"),
        ("describe", Some("node"), _) => "list-machines".to_owned(),
        ("logs", Some("ds" | "pod"), _) if name.is_some() => format!("journal {unit}"),
        ("label", Some("node"), _) => {
            let machine = name.unwrap_or("MACHINE");
            let changes: Vec<&str> = plain.iter().skip(2).copied().collect();
            match changes.is_empty() {
                true => format!("metadata {machine} KEY=VALUE"),
                false => format!("metadata {machine} {}", changes.join(" ")),
            }
        }
        ("taint", Some("node"), _) => format!("cordon {}", name.unwrap_or("MACHINE")),
        _ => return None,
    })
}

/// Returns the error with our command in place of the foreign verb. Other errors stay as they are.
/// `typed`: the whole command line.
pub(crate) fn suggest(error: clap::Error, typed: &[String], command: &mut Command) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    // clap judges the verbs below `rollout`.
    if command.find_subcommand(verb).is_some() {
        return error;
    }
    let at = typed.iter().position(|word| word == verb);
    let words = at.map(|at| &typed[at + 1..]).unwrap_or_default();
    let known = FOREIGN.iter().find(|(foreign, _)| foreign == verb);
    let known = known.map(|(_, ours)| (*ours).to_owned());
    let Some(ours) = kubectl(verb, words).or(known) else {
        return error;
    };
    let message = format!("there is no command '{verb}'; use `fleetctl {ours}`");
    command.error(ErrorKind::InvalidSubcommand, message)
}
