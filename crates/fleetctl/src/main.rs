//! fleetctl: the command line of fleet. It asks one fleetd over HTTP, and other machines over ssh.

mod cli;
mod client;
mod commands;
mod describe;
mod local;
mod machine;
mod options;
mod output;
mod remote;
mod resolve;
mod select;
mod tabwriter;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

fn main() -> ExitCode {
    run(cli::Cli::parse()).unwrap_or_else(|error| {
        output::talk(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

#[tokio::main(flavor = "current_thread")]
async fn run(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    let Some(command) = cli.command else {
        output::write(cli::Cli::command().render_help().to_string().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut client = cli.connect.client()?;
    command.run(&mut client, &cli.connect.remote.ssh()?).await
}
