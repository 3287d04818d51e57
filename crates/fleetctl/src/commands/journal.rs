//! journal: the logs of units from all their machines, ordered by time.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::pin::pin;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::Args;
use fleet_core::api::Machine;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::client::Client;
use crate::describe;
use crate::machine::{find, placed};
use crate::output::{printable, reader_gone, talk};
use crate::remote::Ssh;
use crate::remote::journal::{Entry, Event, HoldBack, Query, Style, fetch, follow, merge};
use crate::select::known_units;

/// The number of lines, as in fleet 1.0.
const LINES: usize = 10;

#[derive(Args)]
#[command(
    after_help = "Runs journalctl on each machine where a unit belongs, over ssh except on this one. A
machine that does not answer is named on stderr, the others are shown, and the exit code
is 1. Entries are ordered by the machines' clocks; times are UTC.

Examples:
  fleetctl journal hello.service
  fleetctl journal -f hello.service 'web@*'
  fleetctl journal --since '10 min ago' --machine 190c6f8f hello.service"
)]
pub(crate) struct Journal {
    /// The number of lines from all machines together, newest kept, or all [default: 10; all with
    /// --since or --until]
    #[arg(long, short = 'n', value_name = "N|all")]
    lines: Option<Lines>,
    /// Continue with new lines until Ctrl-C
    #[arg(long, short, conflicts_with = "until")]
    follow: bool,
    /// Start at this time, as in journalctl: '2026-11-22 06:40', '10 min ago', today
    #[arg(long, short = 'S', value_name = "TIME")]
    since: Option<String>,
    /// End at this time
    #[arg(long, short = 'U', value_name = "TIME")]
    until: Option<String>,
    /// Only this machine, even for a destroyed unit: its id, or a unique beginning of it
    #[arg(long, short)]
    machine: Option<String>,
    /// The parts of an entry to print
    #[arg(long, short, value_enum, value_name = "STYLE", default_value = "short")]
    output: Style,
    /// Run journalctl with sudo
    #[arg(long)]
    sudo: bool,
    /// The port of the machines' SSH servers [default: from your ssh configuration, else 22]
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
}

/// A number of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    Last(usize),
    All,
}

impl FromStr for Lines {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            text => text
                .parse()
                .map(Self::Last)
                .map_err(|_no_number| "must be a number, or all"),
        }
    }
}

impl Journal {
    pub(super) async fn run(self, client: &mut Client, ssh: &Ssh) -> anyhow::Result<ExitCode> {
        if self.names.is_empty() {
            bail!(
                "One unit file must be provided. Name one or more units: fleetctl journal web.service"
            );
        }
        let retrieving = || format!("Error retrieving Unit {}", self.names.join(", "));
        let units = client.units().await.with_context(retrieving)?;
        let known = known_units(units, &self.names)?;
        let mut names: Vec<String> = known.units.into_iter().map(|unit| unit.name).collect();
        for unit in known.unknown {
            // A machine may still have the log of a destroyed unit.
            if self.machine.is_none() || unit.is_pattern() {
                bail!(unit.sentence());
            }
            names.push(unit.name);
        }
        let machines = match &self.machine {
            Some(typed) => {
                let machines = client.machines(false).await.with_context(retrieving)?;
                vec![find(&machines, typed)?.clone()]
            }
            None => placed_any(client, &names).await.with_context(retrieving)?,
        };
        if machines.is_empty() {
            let units = names.join(" ");
            bail!(
                "unit {units} is on no machine (`fleetctl status {units}` shows why); --machine reads the log of one that had it"
            );
        }
        let query = Query {
            units: names,
            lines: self.lines(),
            since: self.since,
            until: self.until,
            sudo: self.sudo,
            whole: self.output == Style::Json,
        };
        let ssh = &ssh.on_port(self.ssh_port);
        let print = Print::new(&machines, self.output);
        let mut all_told = true;
        let mut entries = Vec::new();
        let mut from = Vec::new();
        for (number, fetched) in fetch(ssh, &machines, &query).await.into_iter().enumerate() {
            match fetched {
                Ok(fetched) => {
                    print.remark(number, &fetched.remarks);
                    let last = fetched.entries.last();
                    from.push((number, last.map(|entry| entry.cursor.clone())));
                    entries.push(fetched.entries);
                }
                Err(why) => {
                    print.remark(number, &format!("cannot read the journal: {why}"));
                    all_told = false;
                    entries.push(Vec::new());
                }
            }
        }
        let reader = print.entries(merge(entries, query.lines))?;
        if self.follow && reader.is_continue() {
            all_told &= from.is_empty() || follow_on(ssh, &machines, &query, &from, &print).await?;
        }
        Ok(if all_told {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Returns the number of lines. `None` means all.
    fn lines(&self) -> Option<usize> {
        match self.lines {
            Some(Lines::Last(lines)) => Some(lines),
            Some(Lines::All) => None,
            None if self.since.is_some() || self.until.is_some() => None,
            None => Some(LINES),
        }
    }
}

/// Returns the machines where any of these units belongs, each once.
async fn placed_any(client: &mut Client, names: &[String]) -> anyhow::Result<Vec<Machine>> {
    let mut machines: Vec<Machine> = Vec::new();
    for name in names {
        let status = client.unit_status(name, None).await?;
        for machine in status.iter().flat_map(placed) {
            if machines.iter().all(|known| known.id != machine.id) {
                machines.push(machine);
            }
        }
    }
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(machines)
}

/// Prints entries until stdout is closed or the command is interrupted. Returns whether every
/// machine was followed to the end.
async fn follow_on(
    ssh: &Ssh,
    machines: &[Machine],
    query: &Query,
    from: &[(usize, Option<String>)],
    print: &Print,
) -> anyhow::Result<bool> {
    let mut events = follow(ssh, machines, query, from);
    let mut held = HoldBack::default();
    let mut all_told = true;
    // If this process is ended from outside, each machine's ssh must end too.
    let mut ended = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut gone = pin!(reader_gone());
    loop {
        let next = held.next();
        let due = tokio::time::sleep_until(next.unwrap_or_else(Instant::now));
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Entry(machine, entry)) => held.push(machine, entry, Instant::now()),
                Some(Event::Ended(machine, why)) => {
                    print.remark(machine, &format!("lost the journal: {why}"));
                    all_told = false;
                }
                None => {
                    // All machines have ended; their held entries are still printed.
                    return print.entries(held.all()).map(|_reader| all_told);
                }
            },
            () = due, if next.is_some() => {
                if print.entries(held.due(Instant::now()))?.is_break() {
                    return Ok(all_told);
                }
            }
            _ = interrupted.recv() => return Ok(all_told),
            _ = ended.recv() => return Ok(all_told),
            _ = hung_up.recv() => return Ok(all_told),
            () = &mut gone => return Ok(all_told),
        }
    }
}

/// The output of entries.
struct Print {
    names: Vec<String>,
    style: Style,
    /// Whether a script reads JSON: it gets the bytes unchanged. A terminal never gets control
    /// characters.
    verbatim: bool,
}

impl Print {
    fn new(machines: &[Machine], style: Style) -> Self {
        let names: Vec<String> = machines
            .iter()
            .map(|machine| describe::machine(&machine.id, &machine.primary_ip, false))
            .collect();
        let width = names.iter().map(String::len).max().unwrap_or(0);
        Self {
            names: names.iter().map(|name| format!("{name:width$}")).collect(),
            style,
            verbatim: style == Style::Json && !io::stdout().is_terminal(),
        }
    }

    /// Writes entries to stdout. Returns `Break` once stdout is closed.
    fn entries(&self, entries: Vec<(usize, Entry)>) -> anyhow::Result<ControlFlow<()>> {
        let mut stdout = io::stdout().lock();
        for (machine, entry) in entries {
            let mut text = entry.lines(&self.names[machine], self.style);
            if !self.verbatim {
                text = printable(&text);
            }
            match stdout.write_all(text.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(ControlFlow::Break(()));
                }
                written => written.context("cannot write to stdout")?,
            }
        }
        stdout.flush().context("cannot write to stdout")?;
        Ok(ControlFlow::Continue(()))
    }

    /// Prints a remark about a machine on stderr.
    fn remark(&self, machine: usize, remarks: &str) {
        for line in remarks.lines() {
            talk(format_args!("{}: {line}", self.names[machine].trim_end()));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Verb};
    use crate::commands::Command;
    use clap::Parser as _;

    fn lines(flags: &[&str]) -> Option<usize> {
        let words = [&["fleetctl", "journal"], flags, &["hello"]].concat();
        match Cli::try_parse_from(words).expect("valid").command {
            Some(Verb::Asking(Command::Journal(journal))) => journal.lines(),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn ten_lines_are_shown_unless_a_number_or_a_time_was_given() {
        assert_eq!(lines(&[]), Some(10));
        assert_eq!(lines(&["-n3"]), Some(3));
        assert_eq!(lines(&["--lines=all"]), None);
        assert_eq!(lines(&["--since=today"]), None);
        assert_eq!(lines(&["--until=today", "-n5"]), Some(5));
        assert!(Cli::try_parse_from(["fleetctl", "journal", "-nx", "hello"]).is_err());
    }
}
