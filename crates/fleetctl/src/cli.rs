//! The command line: global flags, the environment behind them, and what fleet 1.0 had and we only accept.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::builder::Resettable;
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::client::{Client, Endpoint, TlsError, TlsFiles};
use crate::commands::{Command, FdForward};
use crate::completion::{Complete, Completion};
use crate::exit;
use crate::man::Man;
use crate::output::{say, talk};
use crate::paint::When;
use crate::remote::Remote;

/// Runs systemd units on every machine of a cluster that should have them.
#[derive(Parser)]
#[command(
    name = "fleetctl",
    version = concat!("version v", env!("CARGO_PKG_VERSION")),
    infer_subcommands = true,
    disable_version_flag = true,
    disable_help_flag = true,
    after_help = "Examples:
  fleetctl start --wait hello.service     run hello.service on every machine that matches
  fleetctl status hello.service           see how it fares everywhere
  fleetctl list-machines                  see the machines

Exit codes:
  0  done
  1  refused, failed, or fleetd does not answer
  2  the command line is wrong
  3  status: a unit is not active everywhere where it belongs
  4  status, wait, rollout, explain: there is no such unit
  5, 6, 7  rollout status: it goes on, it is paused, it was rolled back
plan and diff exit 0 if nothing would change, 1 if something would, 3 if that cannot be told.

Commands may be shortened (`fleetctl list-m`). In the environment, FLEETCTL_ENDPOINT
stands for --endpoint, FLEETCTL_TUNNEL for --tunnel, and so on for global options."
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

/// Everything that fleetctl can be told to do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Asking(Command),
    #[command(flatten)]
    Alone(Alone),
}

/// What asks no fleetd, and so works wherever the global options and the environment point to.
#[derive(Subcommand)]
pub(crate) enum Alone {
    /// Connect standard input and output to fleetd's socket: what --tunnel runs on the other machine
    FdForward(FdForward),
    /// Print the version
    Version,
    /// Gone: fleetd checks a unit file when it is submitted
    #[command(hide = true)]
    Verify {
        #[arg(value_name = "UNIT")]
        _names: Vec<String>,
    },
    /// Print a script that completes commands, units and machines in a shell
    Completion(Completion),
    /// What such a script asks
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
            Self::Version => say(concat!("fleetctl version v", env!("CARGO_PKG_VERSION")))?,
            Self::Verify { .. } => {
                talk(
                    "verify is gone, as are signed units: `fleetctl submit UNIT` checks a unit file and starts nothing; \
                     `systemd-analyze verify FILE` checks what is systemd's",
                );
                return Ok(exit::USAGE.into());
            }
            Self::Completion(completion) => completion.run()?,
            Self::Complete(words) => words.run()?,
            Self::Man(man) => man.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How to reach fleetd.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Connect {
    /// Where fleetd listens: unix:///PATH, https://HOST:PORT, or http://HOST:PORT where it offers plain TCP
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_ENDPOINT",
        hide_env = true,
        value_name = "URL",
        default_value = "unix:///var/run/fleet.sock"
    )]
    endpoint: String,
    /// The authority that signs fleetd's certificate, for https://
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_CA_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    ca_file: Option<String>,
    /// Your certificate, for https://
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_CERT_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    cert_file: Option<String>,
    /// The key of your certificate, for https://
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_KEY_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    key_file: Option<String>,
    /// How long one request may take, in seconds
    #[arg(long, global = true, env = "FLEETCTL_REQUEST_TIMEOUT", hide_env = true, value_name = "SECONDS",
          default_value = "3", value_parser = seconds)]
    request_timeout: Duration,
    #[arg(
        long,
        global = true,
        env = "FLEETCTL_DRIVER",
        default_value = "API",
        hide = true
    )]
    driver: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Flags of fleet 1.0 that scripts may give and that change nothing here.
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
    /// Reads the command line of this process. What is wrong with it, and what `--help` prints, is an error of clap's.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::from(env::args_os())
    }

    fn from<T: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let matches = with_go_flags(Self::command()).try_get_matches_from(arguments)?;
        Self::from_arg_matches(&matches)
    }
}

/// Lets every flag be set and unset by `=true` and `=false` as well, the last one win, and an empty variable of the
/// environment be none, as scripts for fleet 1.0 expect.
fn with_go_flags(command: clap::Command) -> clap::Command {
    command
        .args_override_self(true)
        .mut_args(|flag| {
            let variable = flag.get_env().and_then(env::var_os);
            match variable.is_some_and(|value| value.is_empty()) {
                true => flag.env(Resettable::Reset),
                false => flag,
            }
        })
        .mut_args(|flag| match flag.get_action() {
            ArgAction::SetTrue => flag
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .hide_default_value(true)
                .value_name("true|false")
                .value_parser(go_bool),
            _ => flag,
        })
        .mut_subcommands(with_go_flags)
}

/// Reads a truth value as Go's flags did.
fn go_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("must be true or false"),
    }
}

impl Connect {
    /// What a command line that is still being typed says, by its options so far and the environment. None if it must
    /// not be followed unasked: a tunnel is ssh, which may have questions of its own.
    pub(crate) fn of_unfinished(words: &[OsString]) -> Option<Self> {
        let command = with_go_flags(Cli::command()).ignore_errors(true);
        let matches = command.try_get_matches_from(words).ok()?;
        let tunnel = matches.get_raw("tunnel").into_iter().flatten();
        if tunnel.into_iter().any(|host| !host.is_empty()) {
            return None;
        }
        Self::from_arg_matches(&matches).ok()
    }

    /// The client that the flags ask for; nothing is sent yet.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let unable = "Unable to initialize client";
        self.supported().context(unable)?;
        let mut endpoints = self.endpoint.split(',');
        let first = endpoints.next().unwrap_or_default();
        if endpoints.next().is_some() {
            talk(format_args!(
                "WARNING: multiple endpoints provided but only the first ({first}) is used"
            ));
        }
        let endpoint = Endpoint::parse(first).context(unable)?;
        let tunnel = self.remote.tunnel().context(unable)?;
        let tls = match endpoint {
            Endpoint::Tls(_) => Some(self.tls_files(first).context(unable)?),
            // Scripts for fleet 1.0 may give the files whatever the endpoint.
            _ => None,
        };
        Ok(Client::new(endpoint, tunnel, tls, self.request_timeout))
    }

    fn tls_files(&self, endpoint: &str) -> Result<TlsFiles, TlsError> {
        let [ca, cert, key] = [&self.ca_file, &self.cert_file, &self.key_file]
            .map(|file| file.as_deref().filter(|file| !file.is_empty()));
        TlsFiles::of(endpoint, ca, cert, key)
    }

    /// Refuses what fleet 1.0 could do and we cannot (yet), rather than doing something else.
    fn supported(&self) -> anyhow::Result<()> {
        match self.driver.to_lowercase().as_str() {
            "api" => {}
            "etcd" => bail!(
                "driver \"etcd\" is gone: fleetctl talks to fleetd only; leave --driver out and point --endpoint to a fleetd"
            ),
            _ => bail!("unrecognized driver \"{}\"", self.driver),
        }
        Ok(())
    }
}

/// Reads seconds such as `3` or `0.5`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be a number of seconds above 0, such as 3 or 0.5".to_owned())
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
    fn the_command_line_is_sound() {
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
    fn what_cannot_be_done_is_refused_and_not_ignored() {
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
    fn commands_may_be_shortened_while_they_are_clear() {
        for (typed, clear) in [
            ("list-m", true),
            ("subm", true),
            ("list", false),
            ("st", false),
        ] {
            assert_eq!(Cli::from(["fleetctl", typed]).is_ok(), clear, "{typed}");
        }
    }

    #[test]
    fn a_timeout_is_seconds_above_zero() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "NaN", "inf", "3s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
