//! explain: why a unit runs on machines, or does not, condition by condition.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use fleet_core::api::{ExplainedMachine, Explanation, Machine};
use serde::Serialize;

use super::missing::tell_missing;
use crate::client::Client;
use crate::describe;
use crate::document::{self, Syntax};
use crate::exit;
use crate::machine::find;
use crate::output::{printable, write};
use crate::paint::{self, Paint};
use crate::select::{is_pattern, known_units};

#[derive(Args)]
#[command(
    after_help = "The machine itself decides by these conditions, in this order. The first condition that fails
is the reason. Machines with the same conditions are shown together.

Exit codes:
  0  explained
  1  fleetd does not answer, or refuses
  4  there is no such unit

Examples:
  fleetctl explain web.service
  fleetctl explain 'web@*' db.service
  fleetctl explain --machine 190c6f8f web.service"
)]
pub(crate) struct Explain {
    /// Only this machine: its id, or a unique beginning of it
    #[arg(long, short)]
    machine: Option<String>,
    /// Print every machine, with its whole id
    #[arg(long, short = 'l')]
    full: bool,
    /// Print a document for programs
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Syntax>,
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT", required = true)]
    units: Vec<String>,
}

impl Explain {
    pub(super) async fn run(self, client: &mut Client, paint: Paint) -> anyhow::Result<ExitCode> {
        let units = client.units().await.context("Error explaining units")?;
        let known = known_units(units, &self.units)?;
        let mut explained = Vec::new();
        for unit in &known.units {
            explained.push(self.explain(client, &unit.name).await?);
        }
        let one = self.units.len() == 1 && self.units.iter().all(|typed| !is_pattern(typed));
        let missing = &known.unknown[..];
        if let (true, [unit], Some(_)) = (one, missing, self.output) {
            // The document of a missing unit says so itself.
            explained.push(self.explain(client, &unit.name).await?);
        }
        let documents = explained.iter().map(ExplanationDocument::from);
        let documents: Vec<_> = documents.collect();
        let text = match (self.output, &documents[..]) {
            (Some(syntax), [document]) if one => document::one("Explanation", document, syntax)?,
            (Some(syntax), documents) => document::list("ExplanationList", documents, syntax)?,
            (None, _) => {
                tell_missing(missing);
                let texts = explained.iter().map(|it| self.text(it, paint));
                texts.collect::<Vec<_>>().join("\n")
            }
        };
        write(text.as_bytes())?;
        Ok(match missing {
            [] => ExitCode::SUCCESS,
            _ => exit::NO_SUCH_UNIT.into(),
        })
    }

    async fn explain(&self, client: &mut Client, name: &str) -> anyhow::Result<Explanation> {
        let explaining = || format!("Error explaining {name}");
        let mut explanation = client.explain(name).await.with_context(explaining)?;
        if let Some(typed) = &self.machine {
            // Offline machines are explained too, and no other list has them.
            let known = explanation.machines.iter().map(|machine| Machine {
                id: machine.machine_id.clone(),
                ..Machine::default()
            });
            let known: Vec<Machine> = known.collect();
            let id = &find(&known, typed).with_context(explaining)?.id;
            explanation.machines.retain(|it| it.machine_id == *id);
        }
        Ok(explanation)
    }

    fn text(&self, explanation: &Explanation, paint: Paint) -> String {
        let blocks = groups(&explanation.machines);
        let blocks = blocks
            .iter()
            .map(|alike| self.block(explanation, alike, paint));
        blocks.collect::<Vec<_>>().join("\n")
    }

    /// Returns the text for machines with the same conditions.
    fn block(
        &self,
        explanation: &Explanation,
        alike: &[&ExplainedMachine],
        paint: Paint,
    ) -> String {
        let first = alike[0];
        let who = match alike {
            [only] => describe::machine(&only.machine_id, &only.primary_ip, self.full),
            many => {
                let ids = many.iter().map(|it| it.machine_id.as_str());
                let ids = describe::machines(ids, self.full);
                format!("{} ({ids})", describe::count(many.len()))
            }
        };
        let mut lines = vec![printable(&format!("{} on {who}", explanation.unit))];
        for predicate in &first.predicates {
            let (word, style) = paint::holds(predicate.holds);
            lines.push(format!(
                "  {}  {}",
                paint.text(style, word),
                printable(&format!("{:<17}  {}", predicate.name, predicate.reason))
            ));
        }
        lines.push(printable(&format!("  {}", there(&first.verdict, alike))));
        lines.extend(
            first.would_change.as_ref().map(|change| {
                printable(&format!("  what would change it: {}", there(change, alike)))
            }),
        );
        lines.into_iter().map(|line| line + "\n").collect()
    }
}

/// Returns the machines grouped by their conditions, in the order of each group's first machine.
fn groups(machines: &[ExplainedMachine]) -> Vec<Vec<&ExplainedMachine>> {
    let mut groups: Vec<Vec<&ExplainedMachine>> = Vec::new();
    for machine in machines {
        let same = |group: &&mut Vec<&ExplainedMachine>| group[0].predicates == machine.predicates;
        match groups.iter_mut().find(same) {
            Some(group) => group.push(machine),
            None => groups.push(vec![machine]),
        }
    }
    groups
}

/// Returns a sentence about the first of several machines as one about all of them.
fn there(sentence: &str, alike: &[&ExplainedMachine]) -> String {
    let id = alike[0].machine_id.get(..describe::ID_SHOWN);
    match (alike, id) {
        ([_], _) | (_, None) => sentence.to_owned(),
        (many, Some(id)) => sentence
            .replace(
                &format!("on {id}"),
                &format!("on these {}", describe::count(many.len())),
            )
            .replace(id, "MACHINE"),
    }
}

/// The document of `--output json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplanationDocument<'a> {
    registry_revision: u64,
    unit: &'a str,
    machines: Vec<MachineRow<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MachineRow<'a> {
    machine: &'a str,
    ip: &'a str,
    /// Whether every condition holds.
    as_wanted: bool,
    predicates: &'a [fleet_core::api::Predicate],
    verdict: &'a str,
    would_change: Option<&'a str>,
}

impl<'a> From<&'a Explanation> for ExplanationDocument<'a> {
    fn from(explanation: &'a Explanation) -> Self {
        let machine = |machine: &'a ExplainedMachine| MachineRow {
            machine: &machine.machine_id,
            ip: &machine.primary_ip,
            as_wanted: machine.predicates.iter().all(|it| it.holds),
            predicates: &machine.predicates,
            verdict: &machine.verdict,
            would_change: machine.would_change.as_deref(),
        };
        Self {
            registry_revision: explanation.registry_revision,
            unit: &explanation.unit,
            machines: explanation.machines.iter().map(machine).collect(),
        }
    }
}
