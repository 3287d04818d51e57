//! Completion in shells: `fleetctl completion SHELL` prints a script, which calls
//! `fleetctl __complete` at every Tab.
//!
//! The scripts contain nothing about fleetctl's commands. The installed fleetctl reads them from
//! clap's definitions. An argument is completed by the name of its value. `UNIT` and `MACHINE` are
//! completed from the cluster, and `FILE` from files. A `UNIT` whose hint allows a file is also
//! completed from unit files.

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
    /// The shell to print the script for
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

/// Prints the candidates for the last word, one per line: the candidate, optionally a tab and its
/// description.
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
    // A single dash may become two, and most flags have no short form.
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
    // Listing all flags after all units would hide them. They appear once a dash is typed, as in
    // systemctl.
    found.retain(|candidate| flags || !is_flag(candidate.get_value()));
    Ok(found)
}

/// Returns a candidate as the scripts read it. `None` for a file whose name would be read as two.
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

/// Returns the command with a completer for each argument whose value name is known.
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
                // A unit and the file it is submitted from have the same name. One candidate is
                // enough.
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

/// Returns the files that have unit names, and the folders on the way to them.
fn unit_files(current: &OsStr) -> Vec<CompletionCandidate> {
    let is_unit = |path: &Path| {
        let name = path.file_name().and_then(OsStr::to_str);
        path.is_file() && name.is_some_and(|name| fleet_core::unit::UnitName::parse(name).is_ok())
    };
    PathCompleter::any().filter(is_unit).complete(current)
}
