//! DaemonSet manifests on this machine, and the units converted from them.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, bail};
use fleet_core::daemonset::{MANIFEST_MAX, convert};
use fleet_core::unit::{Content, UnitName};

use crate::output::talk;

/// A unit converted from a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Converted {
    /// The path of the manifest, as it was typed.
    pub(crate) path: String,
    pub(crate) name: UnitName,
    pub(crate) content: Content,
}

/// A word of the command line that names units.
#[derive(Clone, Debug)]
pub(crate) enum Argument {
    /// A name or the path of a unit file.
    Typed(String),
    /// A unit of a manifest.
    Converted(Converted),
}

/// Returns whether a word names a manifest. No unit name ends like one.
pub(crate) fn is_manifest(word: &str) -> bool {
    word.ends_with(".yaml") || word.ends_with(".yml")
}

/// Reads the words of a command line. A manifest is replaced by its units.
pub(crate) fn arguments(words: &[String]) -> anyhow::Result<Vec<Argument>> {
    let manifests = words.iter().filter(|word| is_manifest(word));
    let mut units = converted(manifests)?;
    let mut arguments = Vec::new();
    for word in words {
        if is_manifest(word) {
            let theirs = units.extract_if(.., |unit| unit.path == *word);
            arguments.extend(theirs.map(Argument::Converted));
        } else {
            arguments.push(Argument::Typed(word.clone()));
        }
    }
    Ok(arguments)
}

/// Converts manifests, and prints the remarks on them. If anything is refused, nothing is
/// converted.
pub(crate) fn converted<'w>(
    paths: impl IntoIterator<Item = &'w String>,
) -> anyhow::Result<Vec<Converted>> {
    let mut units: Vec<Converted> = Vec::new();
    let mut refused: Vec<&str> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for path in paths {
        if seen.contains(&path.as_str()) {
            continue;
        }
        seen.push(path);
        let bytes = read(path)?;
        let file = path.rsplit('/').next().unwrap_or(path);
        let conversion = convert(&bytes, file);
        for remark in &conversion.remarks {
            talk(format_args!("{path}:{remark}"));
        }
        if conversion.is_refused() {
            refused.push(path);
        }
        for (name, content) in conversion.units {
            if let Some(other) = units.iter().find(|unit| unit.name == name) {
                bail!("{path} and {} both become {name}", other.path);
            }
            units.push(Converted {
                path: path.clone(),
                name,
                content,
            });
        }
    }
    match refused.as_slice() {
        [] => Ok(units),
        refused => bail!("{} refused; nothing was converted", refused.join(", ")),
    }
}

fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read {path}"))?;
    // A device has no reliable size. Read just enough to detect that it is too long.
    file.take(4 * MANIFEST_MAX as u64)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {path}"))?;
    Ok(bytes)
}
