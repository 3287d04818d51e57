//! Completers for the values of options.

use std::ffi::OsStr;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

/// Completes the last part of a list such as `unit,machine`, with the names that it lacks.
pub(crate) fn list_of(names: Vec<&'static str>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let current = current.to_string_lossy();
        let (before, last) = current
            .rsplit_once(',')
            .map_or(("", &*current), |(list, last)| (list, last));
        let taken: Vec<&str> = before.split(',').collect();
        names
            .iter()
            .filter(|name| name.starts_with(last) && !taken.contains(name))
            .map(|name| {
                CompletionCandidate::new(match before {
                    "" => (*name).to_owned(),
                    before => format!("{before},{name}"),
                })
            })
            .collect()
    })
}
