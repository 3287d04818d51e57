//! Documents for programs: a command's output as JSON or YAML, in a versioned form.
//!
//! A document has an `apiVersion` and a `kind`, so that a script can refuse one it was not written
//! for. Within one version, keys are only added. `docs/reference/output.md` is the reference.

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

/// The version of the documents. Another version means that a key was removed or changed its
/// meaning.
const API_VERSION: &str = "fleetctl/v1";

/// The syntax of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Syntax {
    Json,
    Yaml,
}

/// A document of one object: its fields are beside `kind`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    fields: &'a T,
}

/// A document of many objects.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    items: &'a [T],
}

/// Returns the document of one object, such as a `ClusterStatus`.
pub(crate) fn one(kind: &str, fields: &impl Serialize, syntax: Syntax) -> anyhow::Result<String> {
    let api_version = API_VERSION;
    syntax.write(&One {
        api_version,
        kind,
        fields,
    })
}

/// Returns the document of many objects, such as a `MachineList`.
pub(crate) fn list(kind: &str, items: &[impl Serialize], syntax: Syntax) -> anyhow::Result<String> {
    let api_version = API_VERSION;
    syntax.write(&List {
        api_version,
        kind,
        items,
    })
}

impl Syntax {
    /// Returns one document, terminated so that another one may follow.
    fn write(self, document: &impl Serialize) -> anyhow::Result<String> {
        match self {
            Self::Json => serde_json::to_string_pretty(document)
                .map(|text| text + "\n")
                .context("cannot write JSON"),
            Self::Yaml => serde_saphyr::to_string(document)
                .map(|text| format!("---\n{text}"))
                .context("cannot write YAML"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that a reader of YAML 1.1 or 1.2 would misread or refuse.
    const ODD: &[&str] = &[
        "",
        "yes",
        "NO",
        "on",
        "null",
        "~",
        "1",
        "1e5",
        "0x10",
        "12e4567",
        "0o7",
        "1:30",
        ".5",
        "- a",
        "a: b",
        "a #b",
        "?",
        "%",
        "@x",
        "`",
        "'",
        "\"",
        "two\nlines",
        " blank ",
        "tab\there",
        "esc\x1b[2J",
        "\u{85}",
        "2026-11-22",
        "=",
        "<<",
        "!x",
        "&x",
        "*x",
        "[",
        "{",
        "|",
        ">",
    ];

    #[test]
    fn yaml_keeps_texts_as_texts() {
        insta::assert_snapshot!(list("TextList", ODD, Syntax::Yaml).expect("written"));
    }
}
