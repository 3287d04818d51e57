//! metadata: sets and removes metadata of a machine at run time.

use std::str::FromStr;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use fleet_core::api::{MetadataOp, MetadataValue};
use fleet_core::machine::Metadata;

use crate::client::Client;
use crate::describe::{self, short_id};
use crate::machine::find;
use crate::output::say;

#[derive(Args)]
#[command(
    after_help = "A change overrides the machine's fleet.conf and survives a reboot. `key-` also removes a key of
fleet.conf: the machine has no such key until it is set again, whatever fleet.conf says.
Units that select machines by a changed key start and stop at once.

Examples:
  fleetctl metadata 190c6f8f role=web disk=ssd
  fleetctl metadata 190c6f8f role-"
)]
pub(crate) struct ChangeMetadata {
    /// A machine's id, or a unique beginning of it
    machine: String,
    /// `key=value` sets a key; `key-` removes it, even a key of fleet.conf
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    changes: Vec<Change>,
}

/// One change of a machine's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Set(String, String),
    Remove(String),
}

impl FromStr for Change {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (key, change) = match text.split_once('=') {
            Some((key, value)) if value.is_empty() || value.contains('=') => bail!(
                "the value of {key} must be one or more characters without \"=\"; {key}- removes the key"
            ),
            Some((key, value)) => (key, Self::Set(key.into(), value.into())),
            None => {
                let key = text.strip_suffix('-').ok_or_else(|| {
                    anyhow!("neither key=value, which sets, nor key-, which removes")
                })?;
                (key, Self::Remove(key.into()))
            }
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if key.is_empty() || !key.chars().all(allowed) {
            bail!("a key is made of letters, digits, \"_\", \".\" and \"-\"");
        }
        Ok(change)
    }
}

impl Change {
    fn op(&self, machine: &str) -> MetadataOp {
        let (op, key, value) = match self {
            Self::Set(key, value) => {
                let value = value.clone();
                ("add", key, Some(MetadataValue::Object { value }))
            }
            Self::Remove(key) => ("remove", key, None),
        };
        MetadataOp {
            op: op.into(),
            // A JSON pointer: a slash in the key is no separator.
            path: format!(
                "/{machine}/metadata/{}",
                key.replace('~', "~0").replace('/', "~1")
            ),
            value,
        }
    }

    fn apply(&self, metadata: &mut Metadata) {
        match self {
            Self::Set(key, value) => metadata.insert(key.clone(), value.clone()),
            Self::Remove(key) => metadata.remove(key),
        };
    }
}

impl ChangeMetadata {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<()> {
        let changing = "Error changing metadata";
        let machines = client.machines(false).await.context(changing)?;
        let machine = find(&machines, &self.machine).context(changing)?;
        let ops: Vec<MetadataOp> = self
            .changes
            .iter()
            .map(|change| change.op(&machine.id))
            .collect();
        client.patch_machines(&ops).await.context(changing)?;

        let mut metadata = machine.metadata.clone();
        for change in &self.changes {
            change.apply(&mut metadata);
        }
        say(format_args!(
            "Changed metadata of {}: {}",
            short_id(&machine.id),
            describe::metadata(&metadata)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Change>().expect_err("malformed").to_string()
    }

    #[test]
    fn a_change_sets_or_removes() {
        let parse = |text: &str| text.parse::<Change>().expect("valid");
        assert_eq!(parse("a=b c-"), Change::Set("a".into(), "b c-".into()));
        assert_eq!(parse("a-"), Change::Remove("a".into()));
        assert_eq!(parse("a--"), Change::Remove("a-".into()));
    }

    #[test]
    fn a_misspelt_change_is_refused() {
        assert!(error("role").contains("neither key=value"));
        assert!(error("role=").contains("role- removes the key"));
        assert!(error("a=b=c").contains("without \"=\""));
        for key in ["=x", "-", "a/b=x", "a b-", "é=x"] {
            assert!(error(key).contains("a key is made of"), "{key}");
        }
    }

    #[test]
    fn changes_are_sent_as_a_patch() {
        let ops = [
            Change::Set("role".into(), "web".into()).op("190c"),
            Change::Remove("az".into()).op("190c"),
        ];
        insta::assert_snapshot!(serde_json::to_string(&ops).expect("serialises"), @r#"[{"op":"add","path":"/190c/metadata/role","value":{"value":"web"}},{"op":"remove","path":"/190c/metadata/az"}]"#);
    }
}
