//! Completion in shells: `fleetctl completion SHELL` prints a script, which asks `fleetctl
//! __complete` at every Tab.
//!
//! The scripts know nothing of fleetctl: what fits is read from clap's definitions by the fleetctl
//! that is installed. An argument is completed by what its value is called: `UNIT` and `MACHINE` by
//! what the cluster has, `FILE` by files, and a `UNIT` that may be a file (its hint says so) by
//! unit files too.

mod live;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use clap::{Arg, Args, Command, ValueEnum, ValueHint};
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _, complete,
};

use crate::output::write;
use live::Live;

/// Prints the script for a shell.
#[derive(Args)]
#[command(after_help = "Examples:
  source <(fleetctl completion bash)          in ~/.bashrc
  source <(fleetctl completion zsh)           in ~/.zshrc, after compinit
  fleetctl completion fish | source           in ~/.config/fish/config.fish

For all users:
  fleetctl completion bash > /usr/share/bash-completion/completions/fleetctl
  fleetctl completion zsh > /usr/share/zsh/vendor-completions/_fleetctl
  fleetctl completion fish > /usr/share/fish/vendor_completions.d/fleetctl.fish")]
pub(crate) struct Completion {
    /// The shell that reads it
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    /// Prints the script.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let script = match self.shell {
            Shell::Bash => include_str!("fleetctl.bash"),
            Shell::Zsh => include_str!("fleetctl.zsh"),
            Shell::Fish => include_str!("fleetctl.fish"),
        };
        write(script.as_bytes())
    }
}

/// Prints what the last of the words may become, a line each: the word, and perhaps a tab and what
/// it is.
#[derive(Args)]
pub(crate) struct Complete {
    /// The command line up to the cursor, `fleetctl` first; the last word may be empty
    #[arg(last = true, value_name = "WORD")]
    words: Vec<OsString>,
}

impl Complete {
    /// Prints the candidates for a command line of this command.
    pub(crate) fn run(self, command: Command) -> anyhow::Result<()> {
        let lines: String = candidates(command, self.words)?
            .iter()
            .filter_map(line)
            .collect();
        write(lines.as_bytes())
    }
}

fn candidates(command: Command, mut words: Vec<OsString>) -> io::Result<Vec<CompletionCandidate>> {
    // One dash may still become two, and most flags have no short form.
    if let Some(dash) = words.last_mut().filter(|word| *word == "-") {
        dash.push("-");
    }
    let Some((current, before)) = words.split_last() else {
        return Ok(Vec::new());
    };
    let is_flag = |word: &OsStr| word.as_encoded_bytes().starts_with(b"-");
    let flags = is_flag(current);
    let mut command = completing(command.clone(), &Live::asked_by(command, before));
    let (index, folder) = (before.len(), std::env::current_dir().ok());
    let mut found = complete(&mut command, words, index, folder.as_deref())?;
    // All flags behind all units would bury them: they come once a dash is typed, as systemctl has
    // it.
    found.retain(|candidate| flags || !is_flag(candidate.get_value()));
    Ok(found)
}

/// A candidate as the scripts read it; none for a file whose name would be read as two.
fn line(candidate: &CompletionCandidate) -> Option<String> {
    let value = candidate.get_value().to_str()?;
    if value.contains(char::is_control) {
        return None;
    }
    let help = candidate.get_help().map(ToString::to_string);
    let what = help.as_deref().and_then(|help| help.lines().next());
    Some(match what {
        Some(what) => format!("{value}\t{}\n", what.replace(char::is_control, " ")),
        None => format!("{value}\n"),
    })
}

/// The command with a completer for each argument whose value's name tells what it is.
fn completing(command: Command, live: &Live) -> Command {
    command
        .mut_args(|arg| completed(arg, live))
        .mut_subcommands(|command| completing(command, live))
}

fn completed(arg: Arg, live: &Live) -> Arg {
    let names = arg.get_value_names().unwrap_or_default();
    let is = |kind: &str| {
        let mut words = names.iter().flat_map(|name| name.split(['|', ']']));
        words.any(|word| word == kind)
    };
    let (unit, machine) = (is("UNIT"), is("MACHINE"));
    if unit || machine {
        let live = live.clone();
        let file = arg.get_value_hint() == ValueHint::FilePath;
        return arg.add(ArgValueCompleter::new(move |current: &OsStr| {
            let mut all = Vec::new();
            if machine {
                all.extend(starting(current, live.machines()));
            }
            if unit {
                all.extend(starting(current, live.units()));
            }
            if file {
                all.extend(unit_files(current));
                // A unit is submitted from the file of its name: one of the two is enough.
                let mut seen = BTreeSet::new();
                all.retain(|candidate| seen.insert(candidate.get_value().to_owned()));
            }
            all
        }));
    }
    if is("FILE") {
        arg.value_hint(ValueHint::FilePath)
    } else {
        arg
    }
}

fn starting(
    current: &OsStr,
    names: impl IntoIterator<Item = CompletionCandidate>,
) -> Vec<CompletionCandidate> {
    let current = current.as_encoded_bytes();
    names
        .into_iter()
        .filter(|name| name.get_value().as_encoded_bytes().starts_with(current))
        .collect()
}

/// Files that are called as a unit is, and folders on the way to them.
fn unit_files(current: &OsStr) -> Vec<CompletionCandidate> {
    let is_unit = |path: &Path| {
        let name = path.file_name().and_then(OsStr::to_str);
        path.is_file() && name.is_some_and(|name| fleet_core::unit::UnitName::parse(name).is_ok())
    };
    PathCompleter::any().filter(is_unit).complete(current)
}
