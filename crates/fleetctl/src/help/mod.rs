//! Help: commands grouped by purpose, each with its own options only.
//!
//! `fleetctl options` lists the options that every command takes, once.

mod foreign;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Command};

pub(crate) use foreign::suggest;

use crate::output::write;

/// A heading of the overview, and the commands below it, in this order.
pub(crate) type Group = (&'static str, &'static [&'static str]);

/// The groups of the overview. A command without a group is listed in the last one.
const GROUPS: &[Group] = &[
    (
        "Run units",
        &[
            "start", "stop", "restart", "submit", "load", "unload", "destroy", "wait", "import",
        ],
    ),
    ("Update units", &["plan", "diff", "rollout"]),
    (
        "Look",
        &[
            "status",
            "list-units",
            "list-unit-files",
            "list-globals",
            "cat",
            "journal",
            "explain",
            "events",
        ],
    ),
    (
        "Machines",
        &[
            "list-machines",
            "cordon",
            "uncordon",
            "drain",
            "metadata",
            "ssh",
        ],
    ),
    ("Other commands", &[]),
];

const OVERVIEW: &str = "Options:
  -h, --help     Print help of this or of a command
  -v, --version  Print the version
      ...        `fleetctl options` lists the options that every command takes";

const FOOTER: &str = "`fleetctl options` lists the options that every command takes.";

/// Prints help of a command, or the overview.
#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl help
  fleetctl help rollout status")]
pub(crate) struct Help {
    /// A command, and its subcommand if it has some
    #[arg(value_name = "COMMAND")]
    topic: Vec<String>,
}

impl Help {
    /// Prints the help of `command`, or of the subcommand that the topic names.
    pub(crate) fn run(self, command: Command) -> anyhow::Result<()> {
        let mut command = presented(command);
        command.build();
        let mut found = &command;
        for word in &self.topic {
            let Some(below) = below(found, word) else {
                let message = format!("there is no command '{}'", self.topic.join(" "));
                return Err(command.error(ErrorKind::InvalidSubcommand, message).into());
            };
            found = below;
        }
        if found.get_name() == "options" {
            return Options {}.run(&command);
        }
        let mut found = found.clone();
        write(found.render_help().to_string().as_bytes())
    }
}

/// Returns the command of that name, or the only visible one whose name begins with it.
fn below<'a>(command: &'a Command, word: &str) -> Option<&'a Command> {
    if let Some(exact) = command.find_subcommand(word) {
        return Some(exact);
    }
    let mut begun = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set() && it.get_name().starts_with(word));
    begun.next().filter(|_| begun.next().is_none())
}

/// Prints the options that every command takes.
#[derive(Args)]
#[command(after_help = "Examples:
  fleetctl options")]
pub(crate) struct Options {}

impl Options {
    /// Prints the global options of `command`.
    pub(crate) fn run(&self, command: &Command) -> anyhow::Result<()> {
        write(global_options(command).as_bytes())
    }
}

fn global_options(command: &Command) -> String {
    let globals = command.get_arguments().filter(|arg| is_shared(arg));
    let visible = globals.filter(|arg| !ACCEPTED.contains(&arg.get_id().as_str()));
    let list = Command::new("options")
        .disable_help_flag(true)
        .args(visible.cloned().map(|arg| arg.hide(false)))
        .help_template("{options}");
    let list = list.clone().render_help().to_string();
    format!(
        "Options that every command takes, before or after its name:\n{}\n\n\
         Each has a variable in the environment: FLEETCTL_ENDPOINT for --endpoint, FLEETCTL_TUNNEL\n\
         for --tunnel, and so on. NO_COLOR turns colours off.\n",
        list.trim_end()
    )
}

/// Global options that change nothing, or that new scripts should not use.
const ACCEPTED: &[&str] = &[
    "driver",
    "debug",
    "etcd_key_prefix",
    "etcd_cafile",
    "etcd_certfile",
    "etcd_keyfile",
    "experimental_api",
];

fn is_shared(arg: &clap::Arg) -> bool {
    arg.is_global_set() && !matches!(arg.get_action(), ArgAction::Help)
}

/// Returns the command as its help shows it: global options are hidden, and the overview is
/// grouped.
pub(crate) fn presented(command: Command) -> Command {
    let overview = overview(&command);
    command
        .mut_args(|arg| match is_shared(&arg) {
            true => arg.hide(true),
            // It is listed with the command's own options.
            false => arg.help_heading(Resettable::Reset),
        })
        .mut_subcommands(with_footer)
        .override_usage("fleetctl [OPTIONS] COMMAND [ARGUMENT]...")
        .help_template(format!(
            "{{name}} {{version}}\n{{about}}\n\n{{usage-heading}} {{usage}}\n\n{overview}{OVERVIEW}{{after-help}}"
        ))
}

fn with_footer(command: Command) -> Command {
    let command = command.mut_subcommands(with_footer);
    if command.get_name() == "options" {
        return command;
    }
    let text = match command.get_after_help() {
        Some(text) => format!("{text}\n\n{FOOTER}"),
        None => FOOTER.to_owned(),
    };
    command.after_help(text)
}

/// Returns the headings, each with its visible commands.
pub(crate) fn grouped(command: &Command) -> Vec<(&'static str, Vec<&Command>)> {
    let visible = |name: &&str| {
        let found = command.find_subcommand(name);
        found.filter(|command| !command.is_hide_set())
    };
    let mut groups: Vec<_> = GROUPS
        .iter()
        .map(|(heading, names)| {
            let found: Vec<&Command> = names.iter().filter_map(visible).collect();
            (*heading, found)
        })
        .collect();
    let listed = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set() && !listed(it.get_name()));
    if let Some((_, last)) = groups.last_mut() {
        last.extend(others);
    }
    groups
}

fn overview(command: &Command) -> String {
    let groups = grouped(command);
    let all = groups.iter().flat_map(|(_, commands)| commands);
    let width = all.map(|it| it.get_name().len()).max().unwrap_or_default();
    let mut text = String::new();
    for (heading, commands) in groups {
        text.push_str(&format!("{heading}:\n"));
        for command in commands {
            let about = command.get_about().map(ToString::to_string);
            let (name, about) = (command.get_name(), about.unwrap_or_default());
            text.push_str(&format!("  {name:<width$}  {about}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
