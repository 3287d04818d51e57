//! The command line: global flags, the environment behind them, and flags of fleet 1.0 that are
//! accepted without effect.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::{Command, FdForward, Import};
use crate::completion::{Complete, Completion};
use crate::connect::Connect;
use crate::exit;
use crate::go_flags::with_go_flags;
use crate::help::{Help, Options, presented, suggest};
use crate::man::Man;
use crate::output::{say, talk};
use crate::paint::When;

/// Runs systemd units on every machine of a cluster that should have them.
#[derive(Parser)]
#[command(
    name = "fleetctl",
    version = concat!("version v", env!("CARGO_PKG_VERSION")),
    infer_subcommands = true,
    disable_version_flag = true,
    disable_help_flag = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  fleetctl start --wait hello.service     run hello.service on every machine that matches
  fleetctl status hello.service           show it on every machine
  fleetctl list-machines                  list the machines

Exit codes:
  0  done
  1  refused, failed, or fleetd does not answer
  2  the command line is wrong
  3  status: a unit is not active on every machine where it belongs; without units: there are problems
  4  status, wait, rollout, explain: there is no such unit
  5, 6, 7  rollout status: in progress, paused, rolled back
plan and diff exit 0 if nothing would change, 1 if something would, 3 if that is unknown.

Commands may be shortened (`fleetctl list-m`). In the environment, FLEETCTL_ENDPOINT
sets --endpoint, FLEETCTL_TUNNEL for --tunnel, and so on for global options."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Verb>,
    #[command(flatten)]
    pub(crate) connect: Connect,
    /// When to colour states; auto: on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        help_heading = "Global options"
    )]
    pub(crate) color: When,
    #[command(flatten)]
    _accepted: Accepted,
    /// Print the version
    #[arg(short = 'v', long, short_alias = 'V', action = ArgAction::Version)]
    version: Option<bool>,
    /// Print help
    #[arg(short = 'h', long, alias = "h", global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

/// All commands of fleetctl.
#[derive(Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Asking(Command),
    #[command(flatten)]
    Alone(Alone),
}

/// Commands that contact no fleetd, and so work wherever the global options and the environment
/// point to.
#[derive(Subcommand)]
pub(crate) enum Alone {
    /// Connect standard input and output to fleetd's socket, for --tunnel
    FdForward(FdForward),
    /// Convert DaemonSet manifests to units that run podman
    Import(Import),
    /// Print the version
    #[command(after_help = "Example:
  fleetctl version")]
    Version,
    /// Print help of a command
    Help(Help),
    /// List the options that every command takes
    Options(Options),
    /// Removed: fleetd checks a unit file when it is submitted
    #[command(hide = true)]
    Verify {
        #[arg(value_name = "UNIT")]
        _names: Vec<String>,
    },
    /// Print a script that completes commands, units and machines in a shell
    Completion(Completion),
    /// Print candidates for a completion script
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
    /// Write the man page
    #[command(name = "__man", hide = true)]
    Man(Man),
}

impl Alone {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::FdForward(forward) => forward.run()?,
            Self::Import(import) => import.run()?,
            Self::Help(help) => help.run(with_go_flags(Cli::command()))?,
            Self::Options(options) => options.run(&with_go_flags(Cli::command()))?,
            Self::Version => say(concat!("fleetctl version v", env!("CARGO_PKG_VERSION")))?,
            Self::Verify { .. } => {
                talk(
                    "verify is gone, as are signed units: `fleetctl submit UNIT` checks a unit file and starts nothing; \
                     `systemd-analyze verify FILE` checks what is systemd's",
                );
                return Ok(exit::USAGE.into());
            }
            Self::Completion(completion) => completion.run()?,
            Self::Complete(words) => words.run(with_go_flags(Cli::command()))?,
            Self::Man(man) => man.run(Cli::command())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Flags of fleet 1.0 that scripts may pass. They change nothing here.
#[derive(clap::Args)]
struct Accepted {
    #[arg(long, global = true, env = "FLEETCTL_DEBUG", hide = true, num_args = 0..=1, require_equals = true)]
    debug: Option<String>,
    #[arg(long, global = true, env = "FLEETCTL_ETCD_KEY_PREFIX", hide = true)]
    etcd_key_prefix: Option<String>,
    #[arg(long, global = true, env = "FLEETCTL_ETCD_CAFILE", hide = true)]
    etcd_cafile: Option<String>,
    #[arg(long, global = true, env = "FLEETCTL_ETCD_CERTFILE", hide = true)]
    etcd_certfile: Option<String>,
    #[arg(long, global = true, env = "FLEETCTL_ETCD_KEYFILE", hide = true)]
    etcd_keyfile: Option<String>,
    #[arg(long, global = true, env = "FLEETCTL_EXPERIMENTAL_API", hide = true, num_args = 0..=1, require_equals = true)]
    experimental_api: Option<String>,
}

impl Cli {
    /// Reads the command line of this process. A wrong command line is an error of clap's, and so
    /// is the text of `--help`.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::from(env::args_os())
    }

    /// Reads a command line.
    pub(crate) fn from<T: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut command = presented(with_go_flags(Self::command()));
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        match command.try_get_matches_from_mut(&arguments) {
            Ok(matches) => Self::from_arg_matches(&matches),
            Err(error) => {
                let text = |word: &OsString| word.to_string_lossy().into_owned();
                let typed: Vec<String> = arguments.iter().map(text).collect();
                Err(suggest(error, &typed, &mut command))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let cli = Cli::from(arguments).expect("the parser accepts it");
        match cli.connect.client() {
            Ok(_) => panic!("{arguments:?} is accepted"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn command_line_definition_is_valid() {
        with_go_flags(Cli::command()).debug_assert();
    }

    #[test]
    fn flags_may_be_set_and_unset_as_in_go() {
        for (flags, accepted) in [
            (&["--no-legend", "--full"][..], true),
            (&["--no-legend=true", "--full=F", "-l"], true),
            (&["-lw", "-l=false"], true),
            (&["--no-legend=yes"], false),
            (&["--no-legend", "true"], false),
        ] {
            let arguments = ["fleetctl", "list-machines"].iter().chain(flags);
            assert_eq!(Cli::from(arguments).is_ok(), accepted, "{flags:?}");
        }
    }

    #[test]
    fn unsupported_option_is_refused_and_not_ignored() {
        for (flag, text) in [
            ("--driver=bogus", "unrecognized driver \"bogus\""),
            ("--driver=etcd", "driver \"etcd\" is gone"),
            (
                "--tunnel=n1:ssh",
                "\"n1:ssh\" names no host to tunnel through",
            ),
            ("--endpoint=nosuch", "URL scheme undefined"),
            (
                "--endpoint=https://n1:49153",
                "https://n1:49153 asks for TLS: name the authority",
            ),
        ] {
            let refusal = refusal(&["fleetctl", flag, "list-machines"]);
            assert!(
                refusal.starts_with(&format!("Unable to initialize client: {text}")),
                "{refusal}"
            );
        }
    }

    #[test]
    fn flags_of_fleet_1_0_are_accepted_before_and_after_the_command() {
        let old = [
            "--debug",
            "--strict-host-key-checking=false",
            "--ssh-username=core",
            "--etcd-key-prefix=/x/",
            "--experimental-api",
        ];
        let before = ["fleetctl"].iter().chain(&old).chain(&["list-machines"]);
        let after = ["fleetctl", "start"].iter().chain(&old).chain(&[
            "--no-block",
            "--block-attempts=3",
            "a",
        ]);
        for arguments in [before.collect::<Vec<_>>(), after.collect()] {
            assert!(Cli::from(&arguments).is_ok(), "{arguments:?}");
        }
        for command in ["status", "journal", "ssh"] {
            let arguments = ["fleetctl", command, "--ssh-port=2222", "a"];
            assert!(Cli::from(arguments).is_ok(), "{command}");
        }
    }

    #[test]
    fn commands_may_be_shortened_while_unambiguous() {
        for (typed, clear) in [
            ("list-m", true),
            ("subm", true),
            ("list", false),
            ("st", false),
        ] {
            assert_eq!(Cli::from(["fleetctl", typed]).is_ok(), clear, "{typed}");
        }
    }
}
