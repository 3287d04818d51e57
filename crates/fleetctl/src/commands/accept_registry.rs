//! accept-registry: accepts a held registry as it is, for the whole cluster.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::bail;
use clap::Args;
use fleet_core::api::{AcceptBody, RegistryStanding};

use crate::client::Client;
use crate::output::{say, talk};

/// The number of units that are named before the rest is counted.
const NAMED: usize = 20;

#[derive(Args)]
#[command(
    after_help = "Machines hold a registry that was wiped, restored from a backup, or belongs to another cluster. They
keep their units running and change nothing. Check first: a restored registry may lack units, and
these units stop. Afterwards every machine of the cluster that holds this registry follows it, even
one that returns later.

Examples:
  fleetctl accept-registry --dry-run
  fleetctl accept-registry"
)]
pub(crate) struct AcceptRegistry {
    /// Show what this machine would stop, start and change, and accept nothing
    #[arg(long)]
    dry_run: bool,
    /// Accept without asking
    #[arg(short = 'y', long)]
    yes: bool,
}

impl AcceptRegistry {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let standing = client.registry().await?;
        match standing.state.as_str() {
            "held" => {}
            "followed" => return say("the registry is followed here: there is nothing to accept"),
            "new" => {
                return say(
                    "the registry is new, and waits for an engine: there is nothing to accept",
                );
            }
            _ => bail!("fleetd has not read the registry yet; `systemctl status fleet` shows why"),
        }
        for line in lines(&standing) {
            say(line)?;
        }
        if self.dry_run {
            return Ok(());
        }
        if !self.yes {
            confirm()?;
        }
        let cluster = standing.cluster.clone();
        let after = client.accept_registry(&AcceptBody { cluster }).await?;
        say(format_args!(
            "accepted, as cluster {}: every machine of cluster {} follows it from now on; see fleetctl status",
            after.cluster, standing.belongs_to
        ))
    }
}

fn lines(standing: &RegistryStanding) -> Vec<String> {
    let or = |text: &str, none: &str| match text {
        "" => none.to_owned(),
        text => text.to_owned(),
    };
    let mut lines = vec![
        standing.reason.clone(),
        format!(
            "this machine belongs to cluster {}",
            or(&standing.belongs_to, "(unknown)")
        ),
        format!(
            "the registry is of cluster     {}",
            or(&standing.cluster, "(none: it gets an id)")
        ),
        "if it is accepted, this machine".to_owned(),
    ];
    for (verb, names) in [
        ("stops", &standing.stops),
        ("starts", &standing.starts),
        ("changes", &standing.changes),
    ] {
        lines.push(format!("  {verb:<8} {}", named(names)));
    }
    lines
}

fn named(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let mut text = names[..names.len().min(NAMED)].join(" ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

/// Asks the person at the terminal. Without a terminal it refuses.
fn confirm() -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!(
            "nothing was accepted: there is no terminal to ask on; check with --dry-run, then use --yes"
        );
    }
    talk("Accept it for every machine of the fleet? Type yes:");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        bail!("nothing was accepted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_shows_the_registrys_effects_here() {
        let standing = RegistryStanding {
            state: "held".to_owned(),
            reason: "the registry is empty".to_owned(),
            belongs_to: "c1".to_owned(),
            stops: (0..22).map(|n| format!("u{n}.service")).collect(),
            ..RegistryStanding::default()
        };
        let text = lines(&standing).join("\n");
        assert!(text.contains("belongs to cluster c1"), "{text}");
        assert!(text.contains("(none: it gets an id)"), "{text}");
        assert!(text.contains("stops    u0.service"), "{text}");
        assert!(text.contains("u19.service and 2 more\n"), "{text}");
        assert!(text.contains("starts   nothing"), "{text}");
    }
}
