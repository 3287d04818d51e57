//! fleetctl: the command line of fleet. It asks one fleetd over HTTP, and does nothing else.

mod cli;
mod client;
mod commands;
mod describe;
mod document;
mod exit;
mod listing;
mod local;
mod options;
mod output;
mod paint;
mod resolve;
mod select;
mod tabwriter;
mod wait;
mod watch;

use std::process::ExitCode;

use clap::CommandFactory as _;

fn main() -> ExitCode {
    cli::Cli::read()
        .map_err(anyhow::Error::from)
        .and_then(run)
        .unwrap_or_else(|error| failure(&error))
}

#[tokio::main(flavor = "current_thread")]
async fn run(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    let Some(command) = cli.command else {
        output::write(cli::Cli::command().render_help().to_string().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    let paint = paint::Paint::stdout(cli.color);
    command.run(&mut cli.connect.client()?, paint).await
}

/// Tells what went wrong. A wrong command line has a code of its own, 2, and `--help` is none.
fn failure(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<clap::Error>() {
        Some(usage) => {
            // A reader that has gone is no error.
            let _ = usage.print();
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        None => {
            output::talk(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
