//! diff: how unit files differ from the registry, and what the change would restart.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use fleet_core::unit::Content;
use similar::TextDiff;

use super::plan::{ask, headline};
use crate::client::Client;
use crate::exit;
use crate::manifest::{self, Argument, Converted};
use crate::output::{printable, say, talk, write};
use crate::resolve::{ResolveError, Sources, replacement};

/// Lines of context, as in diff(1).
const CONTEXT: usize = 3;

#[derive(Args)]
#[command(
    after_help = "Each difference follows a line that says what it would do. patch(1) can apply the output.

Exit codes, as in diff(1) except the last:
  0  nothing differs
  1  something differs
  2  the command line is wrong
  3  a file cannot be read or would be refused, or fleetd does not answer

Example:
  fleetctl diff web.service units/*.service"
)]
pub(crate) struct Diff {
    /// Paths of unit files or DaemonSet manifests (.yaml); `.service` may be left out
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

impl Diff {
    pub(super) async fn run(self, client: &mut Client) -> ExitCode {
        match self.diff(client).await {
            Ok(code) => code,
            Err(error) => {
                talk(format_args!("{error:#}"));
                exit::TROUBLE.into()
            }
        }
    }

    async fn diff(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let arguments = manifest::arguments(&self.files)?;
        let look_up = async |client: &mut Client, argument: &Argument| {
            let sources = Sources::look_up(client, argument).await?;
            let name = sources.name.clone();
            let registered = sources.registered.as_ref();
            let registered = registered.map(|unit| unit.content.clone());
            match replacement(sources) {
                Err(ResolveError::NoReplacement { path, .. }) => {
                    bail!("there is no file {path} to compare {name} with")
                }
                content => Ok((name, registered, content?)),
            }
        };
        let mut code = ExitCode::SUCCESS;
        let mut refused = false;
        let compared = client.each(&arguments, look_up).await;
        for (argument, compared) in arguments.iter().zip(compared) {
            let (Argument::Typed(file) | Argument::Converted(Converted { path: file, .. })) =
                argument;
            let (name, registered, content) = compared.context("Error comparing units")?;
            if registered.as_ref() == Some(&content) {
                continue;
            }
            code = exit::CHANGES.into();
            let plan = ask(client, [(name.clone(), content.clone())]).await?;
            for unit in &plan.units {
                refused |= unit.error.is_some();
                say(headline(unit))?;
                for note in &unit.notes {
                    say(printable(&format!("  note: {note}")))?;
                }
            }
            let old = match &registered {
                Some(_) => format!("registry/{name}"),
                None => "/dev/null".to_owned(),
            };
            let registered = registered.as_ref().map(Content::to_text);
            let difference = unified(
                &registered.unwrap_or_default(),
                &content.to_text(),
                &old,
                file,
            );
            write(shown(difference).as_bytes())?;
        }
        Ok(if refused { exit::TROUBLE.into() } else { code })
    }
}

fn unified(old: &str, new: &str, old_name: &str, new_name: &str) -> String {
    TextDiff::from_lines(old, new)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(old_name, new_name)
        .to_string()
}

/// Returns the text for stdout. A terminal gets no control characters; patch(1) gets the bytes.
fn shown(text: String) -> String {
    if io::stdout().is_terminal() {
        printable(&text)
    } else {
        text
    }
}
