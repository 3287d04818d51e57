//! ssh: runs a command or a shell on a machine of the cluster.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use fleet_core::api::{Machine, UnitStatus};

use crate::client::Client;
use crate::local::typed_name;
use crate::machine::{NoMachine, find, placed};
use crate::output::talk;
use crate::remote::{Prompts, SSH_FAILED, Ssh, is_here, shell_words};
use crate::select::Unknown;

#[derive(Args)]
#[command(
    after_help = "The exit code is the command's own; 255 if ssh failed. As with ssh, the words of the
command are joined by blanks and read by a shell there. This machine itself needs no ssh.

Examples:
  fleetctl ssh 190c6f8f                    a shell on that machine
  fleetctl ssh hello.service uptime        on the machine that runs hello.service, if only one does
  fleetctl ssh -m 190c -A -- journalctl -b"
)]
pub(crate) struct SshCommand {
    /// A machine: its id, or a unique beginning of it
    #[arg(long, short)]
    machine: Option<String>,
    /// A unit: the machine where it belongs
    #[arg(long, short)]
    unit: Option<String>,
    /// Let the machine use your ssh agent
    #[arg(long, short = 'A')]
    forward_agent: bool,
    /// Give the command a terminal; a shell always has one
    #[arg(long, short = 't')]
    pty: bool,
    /// The port of the machine's SSH server [default: from your ssh configuration, else 22]
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,
    /// A machine or unit, unless a flag names it; then the command
    #[arg(trailing_var_arg = true, value_name = "MACHINE|UNIT] [COMMAND")]
    words: Vec<String>,
}

impl SshCommand {
    pub(super) async fn run(self, client: &mut Client, ssh: &Ssh) -> anyhow::Result<ExitCode> {
        let (machine, command) = self.target(client).await.context("Unable to proceed")?;
        if is_here(&machine.id) {
            return Ok(exit_code(run_here(command)?));
        }
        let mut more = Vec::new();
        more.extend(self.forward_agent.then_some("-A"));
        more.extend(self.pty.then_some("-tt"));
        let ssh = ssh.on_port(self.ssh_port);
        let to = ssh.to(&machine).context("Unable to proceed")?;
        let status = Command::new("ssh")
            .args(ssh.beyond(&to, Prompts::Allowed, &more))
            .args(command)
            .status()
            .context("cannot run ssh; install OpenSSH's client (package openssh-client)")?;
        if status.code() == Some(SSH_FAILED) {
            talk(format_args!(
                "ssh to {to} ended with 255: {}",
                ssh.next_step(&to, "")
            ));
        }
        Ok(exit_code(status))
    }

    /// Returns the machine and the words of the command.
    async fn target(&self, client: &mut Client) -> anyhow::Result<(Machine, &[String])> {
        match (&self.machine, &self.unit, self.words.split_first()) {
            (Some(_), Some(_), _) => {
                bail!("Both machine and unit flags provided, please specify only one.")
            }
            (None, None, None) => bail!("one machine or unit must be provided"),
            (Some(machine), None, _) => {
                let machines = client.machines(false).await?;
                Ok((find(&machines, machine)?.clone(), &self.words))
            }
            (None, Some(unit), _) => {
                let status = unit_status(client, unit).await?;
                let Some(status) = status else {
                    bail!(unknown(client, unit).await?.sentence());
                };
                Ok((only_machine(&status, &self.words)?, &self.words))
            }
            (None, None, Some((either, command))) => {
                let machines = client.machines(false).await?;
                match find(&machines, either) {
                    Ok(machine) => return Ok((machine.clone(), command)),
                    Err(NoMachine::Unknown(_)) => {}
                    Err(ambiguous) => return Err(ambiguous.into()),
                }
                let status = unit_status(client, either).await?;
                let Some(status) = status else {
                    let hint = unknown(client, either).await?.hint();
                    bail!("could not find matching unit or machine{hint}");
                };
                Ok((only_machine(&status, command)?, command))
            }
        }
    }
}

/// Returns the unit's status. `None` if there is no such unit, or the text cannot be a unit name.
async fn unit_status(client: &mut Client, typed: &str) -> anyhow::Result<Option<UnitStatus>> {
    match typed_name(typed) {
        Ok(name) => Ok(client.unit_status(name.as_str(), None).await?),
        Err(_no_name) => Ok(None),
    }
}

/// Returns the description of a missing unit.
async fn unknown(client: &mut Client, typed: &str) -> anyhow::Result<Unknown> {
    let name = typed_name(typed).map_or_else(|_| typed.to_owned(), |name| name.to_string());
    Ok(Unknown::among(name, &client.units().await?))
}

/// Returns the only machine where the unit belongs. If there are several, the error lists what to
/// type.
fn only_machine(status: &UnitStatus, command: &[String]) -> anyhow::Result<Machine> {
    match &placed(status)[..] {
        [machine] => Ok(machine.clone()),
        [] => bail!(
            "unit {} is on no machine; `fleetctl status {0}` shows why",
            status.name
        ),
        several => {
            let type_this = |machine: &Machine| {
                let mut words = vec!["fleetctl", "ssh", "--machine", &machine.id];
                words.extend(command.iter().map(String::as_str));
                let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
                format!("\n  {}", shell_words(&words))
            };
            Err(anyhow!(
                "unit {} is on {} machines, choose one:{}",
                status.name,
                several.len(),
                several.iter().map(type_this).collect::<String>()
            ))
        }
    }
}

/// Runs a command as ssh would: the user's shell, or a shell that reads the words.
fn run_here(command: &[String]) -> anyhow::Result<ExitStatus> {
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let mut process = Command::new(&shell);
    if !command.is_empty() {
        process.arg("-c").arg(command.join(" "));
    }
    process
        .status()
        .with_context(|| format!("cannot run {shell}"))
}

/// Returns the exit code as shells count it: 128 and above for a signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::api::UnitOnMachine;

    fn hello(placed: &[bool]) -> UnitStatus {
        let machine = |(n, &placed): (usize, &bool)| UnitOnMachine {
            machine_id: (n + 1).to_string().repeat(32),
            primary_ip: format!("10.99.1.{}", n + 1),
            placed,
            ..UnitOnMachine::default()
        };
        UnitStatus {
            name: "hello.service".into(),
            machines: placed.iter().enumerate().map(machine).collect(),
            ..UnitStatus::default()
        }
    }

    #[test]
    fn a_unit_on_one_machine_names_that_machine() {
        let machine = only_machine(&hello(&[false, true]), &[]).expect("only one");
        assert_eq!(machine.primary_ip, "10.99.1.2");
    }

    #[test]
    fn unit_on_several_machines_is_refused_with_the_next_step() {
        let command = ["echo", "two words"].map(str::to_owned);
        let error = only_machine(&hello(&[true, false, true]), &command).expect_err("two");
        insta::assert_snapshot!(error, @r"
        unit hello.service is on 2 machines, choose one:
          fleetctl ssh --machine 11111111111111111111111111111111 echo 'two words'
          fleetctl ssh --machine 33333333333333333333333333333333 echo 'two words'
        ");
        let error = only_machine(&hello(&[false]), &[]).expect_err("none");
        assert!(error.to_string().contains("is on no machine"));
    }
}
