//! fleetctl: the command line of fleet. It contacts one fleetd over HTTP, and other machines over
//! ssh.

mod cli;
mod client;
mod commands;
mod completers;
mod completion;
mod connect;
mod describe;
mod document;
mod endpoint;
mod exit;
mod go_flags;
mod help;
mod listing;
mod local;
mod machine;
mod man;
mod manifest;
mod options;
mod output;
mod paint;
mod remote;
mod resolve;
mod select;
mod tabwriter;
mod wait;
mod watch;

use std::process::ExitCode;

use clap::CommandFactory as _;

use cli::{Cli, Verb};
use commands::Command;
use connect::Connect;
use paint::{Paint, When};

fn main() -> ExitCode {
    Cli::read()
        .map_err(anyhow::Error::from)
        .and_then(run)
        .unwrap_or_else(|error| failure(&error))
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Some(Verb::Asking(command)) => ask(command, &cli.connect, cli.color),
        Some(Verb::Alone(command)) => command.run(),
        None => {
            let overview = help::presented(Cli::command()).render_help();
            output::write(overview.to_string().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn ask(command: Command, connect: &Connect, color: When) -> anyhow::Result<ExitCode> {
    let paint = Paint::stdout(color);
    let (mut client, ssh) = (connect.client()?, connect.remote.ssh()?);
    command.run(&mut client, &ssh, paint).await
}

/// Prints the error. A wrong command line has the exit code 2, and `--help` is no error.
fn failure(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<clap::Error>() {
        Some(usage) => {
            // A closed stdout is no error.
            let _ = usage.print();
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        None => {
            output::talk(format_args!("{error:#}"));
            match error.is::<wait::NoMachine>() {
                true => exit::NOT_ACTIVE.into(),
                false => ExitCode::FAILURE,
            }
        }
    }
}
