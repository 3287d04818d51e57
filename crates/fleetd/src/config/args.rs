//! The flags of fleetd: a few of its own, and one for every option of the table.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches, Parser as _};

use super::options::{Kind, OPTIONS, Opt};

/// Run systemd units on every machine that should have them.
///
/// fleetd runs on every machine of a fleet. It makes this machine's systemd follow the registry in
/// etcd, serves the API for fleetctl, and takes its turn in leading updates.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "fleetd", version = VERSION, after_help = PRECEDENCE)]
pub struct Args {
    /// Read this file instead of /etc/fleet/fleet.conf. It must exist.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the settings in effect, where each comes from, and what is wrong with them; then exit,
    /// with 78 if anything is.
    #[arg(long, alias = "check_config")]
    pub check_config: bool,

    /// Keep the registry in state_directory instead of etcd: a fleet of this one machine.
    #[arg(long)]
    pub standalone: bool,

    /// The options of fleet.conf.
    #[command(flatten)]
    pub flags: Flags,
}

/// The text after the name in `--version`, in fleet 1.0's words.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"));

impl Args {
    /// Reads a command line. If it is wrong or asks for help, the process ends. Long flags may have
    /// one dash, as in every unit file written for fleet 1.0.
    pub fn of(command_line: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_from(two_dashes(command_line))
    }
}

/// Adds the second dash to long flags with one dash.
fn two_dashes(command_line: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    command_line.into_iter().map(|argument| {
        let bytes = argument.as_encoded_bytes();
        // `-h` and `-V` are short flags. No value of an option begins with a dash.
        if bytes.len() > 2 && bytes[0] == b'-' && bytes[1].is_ascii_alphabetic() {
            let mut long = OsString::from("-");
            long.push(argument);
            return long;
        }
        argument
    })
}

const PRECEDENCE: &str = "Every option may stand in the file as KEY=VALUE (etcd_servers=...), in the \
environment (FLEET_ETCD_SERVERS=...) or here (--etcd-servers ...). The environment wins over the file, \
a flag over both. An empty value means the default.

Exit codes: 0 stopped on request, 1 could not go on, 2 the command line is wrong, \
78 the configuration cannot be used.";

/// The options given as flags, by name.
#[derive(Clone, Default)]
pub struct Flags(pub BTreeMap<&'static str, String>);

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It has names only, because one of the values may be the password.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = OPTIONS.iter().filter_map(|option| {
            let text = matches.get_one::<String>(option.name)?;
            Some((option.name, text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(OPTIONS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(option: &'static Opt) -> Arg {
    let flag = option.flag();
    let arg = Arg::new(option.name).value_name("VALUE");
    // clap refuses an alias that equals the flag.
    let arg = if flag == option.name {
        arg.long(flag)
    } else {
        arg.long(flag).alias(option.name)
    };
    match option.kind {
        Kind::Value(name) => arg.value_name(name).help(help(option)),
        Kind::Secret => arg.help(help(option)),
        Kind::Switch => arg
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .help(help(option)),
        Kind::Unused(_) => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide(true),
    }
}

fn help(option: &Opt) -> String {
    let mut help = format!("{} ({}", option.meaning.trim_end_matches('.'), option.unit);
    if !option.default.is_empty() {
        help += &format!("; default {}", option.default);
    }
    help + ")"
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent_and_every_option_has_a_flag() {
        let command = Args::command();
        command.clone().debug_assert();
        for option in OPTIONS {
            assert!(
                command
                    .get_arguments()
                    .any(|arg| arg.get_id() == option.name),
                "{}",
                option.name
            );
        }
    }

    #[test]
    fn a_flag_is_written_with_dashes_or_as_in_the_file() {
        let args = Args::try_parse_from([
            "fleetd",
            "--etcd-servers=http://a:1",
            "--public_ip",
            "10.0.0.1",
            "--disable-engine",
            "--insecure-tcp=false",
        ])
        .expect("valid");
        let expected = [
            ("disable_engine", "true"),
            ("etcd_servers", "http://a:1"),
            ("insecure_tcp", "false"),
            ("public_ip", "10.0.0.1"),
        ];
        assert_eq!(
            args.flags.0,
            expected.map(|(name, text)| (name, text.to_owned())).into()
        );
    }

    #[test]
    fn flags_of_fleet_1_without_effect_are_accepted() {
        let args = Args::try_parse_from(["fleetd", "--verify-units", "--systemd_user=false"]);
        assert_eq!(args.expect("valid").flags.0.len(), 2);
    }

    #[test]
    fn a_long_flag_may_have_one_dash() {
        let line = [
            "fleetd",
            "-config",
            "/f.conf",
            "-verbosity=1",
            "-verify_units=false",
            "--public-ip=10.0.0.1",
        ];
        let args = Args::of(line.map(OsString::from));
        assert_eq!(args.config, Some("/f.conf".into()));
        let names: Vec<_> = args.flags.0.keys().copied().collect();
        assert_eq!(names, ["public_ip", "verbosity", "verify_units"]);
        for flag in ["-version", "--version", "-V"] {
            let line = two_dashes(["fleetd", flag].map(OsString::from));
            let told = Args::try_parse_from(line).expect_err("it only tells");
            let version = concat!("fleetd version ", env!("CARGO_PKG_VERSION"), "\n");
            assert_eq!(told.to_string(), version);
        }
    }

    #[test]
    fn a_password_flag_never_reaches_a_log() {
        let args = Args::try_parse_from(["fleetd", "--etcd-password=hunter2"]).expect("valid");
        assert!(!format!("{args:?}").contains("hunter2"));
    }
}
