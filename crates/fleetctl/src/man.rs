//! fleetctl(1): one page of all commands, from the same definitions as `--help`.

use std::io;

use clap::builder::PossibleValue;
use clap::{Args, Command};
use clap_mangen::roff::{Roff, bold, roman};

use crate::help::grouped;
use crate::output::write;

/// Prints the man page, as roff.
#[derive(Args)]
pub(crate) struct Man {}

impl Man {
    /// Prints the page of this command.
    pub(crate) fn run(&self, command: Command) -> anyhow::Result<()> {
        write(&page(command)?)
    }
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut command = compact(command).override_usage("fleetctl [OPTIONS] COMMAND [ARGUMENT]...");
    command.build();
    let man = clap_mangen::Man::new(command.clone())
        .source(concat!("fleet ", env!("CARGO_PKG_VERSION")))
        .manual("fleet");
    let (headed, plain): (Vec<_>, _) = blocks(&command).into_iter().partition(Block::is_headed);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let mut roff = Roff::new();
    for block in plain {
        block.write(&mut roff, "PP");
    }
    page.extend(roff.to_roff().into_bytes());
    let names = |commands: Vec<&Command>| -> Vec<String> {
        commands.iter().map(|it| it.get_name().to_owned()).collect()
    };
    let groups: Vec<_> = grouped(&command)
        .into_iter()
        .map(|(heading, commands)| (heading, names(commands)))
        .collect();
    for (heading, names) in groups {
        let mut roff = Roff::new();
        roff.control("SH", [&*heading.to_uppercase()]);
        page.extend(roff.to_roff().into_bytes());
        for name in names {
            if let Some(below) = command.find_subcommand_mut(&name) {
                section(below, &mut page)?;
            }
        }
    }
    man.render_options_section(&mut page)?;
    let mut roff = Roff::new();
    for block in headed {
        block.write(&mut roff, "SH");
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(
        "fleetd(8), fleet.unit(5), fleet.conf(5), systemctl(1)",
    )]);
    page.extend(roff.to_roff().into_bytes());
    Ok(page)
}

/// Returns the command with the possible values of each argument in one line, as in `--help`. A
/// list for each would fill the page.
fn compact(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let values = arg.get_possible_values();
            let values: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
            if values.is_empty() || !arg.get_action().takes_values() {
                return arg;
            }
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let help = format!("{help} [possible values: {}]", values.join(", "));
            arg.help(help).hide_possible_values(true)
        })
        .mut_subcommands(compact)
}

/// Writes the section of a command, and those of its subcommands.
fn section(command: &mut Command, page: &mut Vec<u8>) -> io::Result<()> {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let about = command.get_about().map(ToString::to_string);
    let mut roff = Roff::new();
    roff.control("SS", [&*usage]);
    roff.text([roman(about.unwrap_or_default())]);
    page.extend(roff.to_roff().into_bytes());
    page.extend(options(command)?);
    let mut roff = Roff::new();
    for block in blocks(command) {
        block.write(&mut roff, "PP");
    }
    page.extend(roff.to_roff().into_bytes());
    for below in command.get_subcommands_mut() {
        if !below.is_hide_set() && below.get_name() != "help" {
            section(below, page)?;
        }
    }
    Ok(())
}

/// Returns the options of one command, without the global ones.
fn options(command: &Command) -> io::Result<Vec<u8>> {
    let own = command.get_arguments().filter(|arg| !arg.is_global_set());
    let own = Command::new("own")
        .disable_help_flag(true)
        .args(own.cloned());
    let mut section = Vec::new();
    clap_mangen::Man::new(own).render_options_section(&mut section)?;
    // The text before the first option is the page's heading, not the command's.
    let section = String::from_utf8_lossy(&section);
    let first = section.find(".TP").unwrap_or(section.len());
    Ok(section[first..].into())
}

/// A paragraph of the text after the options: prose, or lines under a heading.
struct Block(String);

fn blocks(command: &Command) -> Vec<Block> {
    let text = command.get_after_help().map(ToString::to_string);
    let text = text.unwrap_or_default();
    let blocks = text.split("\n\n").filter(|block| !block.is_empty());
    blocks.map(|block| Block(block.to_owned())).collect()
}

impl Block {
    fn is_headed(&self) -> bool {
        self.0
            .lines()
            .next()
            .is_some_and(|line| line.ends_with(':'))
    }

    /// Writes the paragraph, with its heading if it has one, as this macro of roff expects.
    fn write(&self, roff: &mut Roff, heading: &str) {
        let mut lines = self.0.lines();
        if !self.is_headed() {
            roff.control("PP", []);
            for line in lines {
                roff.text([roman(line)]);
            }
            return;
        }
        let title = lines.next().unwrap_or_default();
        if heading == "SH" {
            roff.control("SH", [&*title.trim_end_matches(':').to_uppercase()]);
        } else {
            roff.control(heading, []).text([bold(title)]);
        }
        roff.control("nf", []);
        for line in lines {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    /// Returns every visible command and flag of this one, as the page has it.
    fn names(command: &Command, path: &str) -> Vec<String> {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let long = |arg: &clap::Arg| Some(format!("--{}", arg.get_long()?).replace('-', "\\-"));
        let mut names: Vec<String> = flags.filter_map(long).collect();
        for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            let path = format!("{path} {}", below.get_name());
            names.extend(self::names(below, &path));
            names.push(format!(".SS \"{path}"));
        }
        names
    }

    fn pages(folder: &Path) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                text += &pages(&path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                text += &fs::read_to_string(&path).expect("text");
            }
        }
        text
    }

    #[test]
    fn docs_name_every_command_and_flag() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let docs = pages(&docs);
        for name in names(&Cli::command(), "fleetctl") {
            let name = name.replace("\\-", "-").replace(".SS \"", "");
            let short = name.strip_prefix("fleetctl ");
            let is_named = short.is_some_and(|short| docs.contains(&format!("`{short}")));
            assert!(
                is_named || docs.contains(&name),
                "no page in docs/ names {name}"
            );
        }
    }

    #[test]
    fn the_page_has_every_command_and_flag() {
        let page = String::from_utf8(page(Cli::command()).expect("written")).expect("text");
        for name in names(&Cli::command(), "fleetctl") {
            assert!(page.contains(&name), "{name} is not in\n{page}");
        }
    }
}
