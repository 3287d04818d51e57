//! DaemonSet manifests on this machine, and the units converted from them.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, bail};
use fleet_core::api;
use fleet_core::daemonset::{MANIFEST_MAX, convert, port_clash};
use fleet_core::unit::{Content, Parsed, TargetState, UnitName, serialize};

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

/// Returns a warning for each pair of units that want the same port of a machine: new units with
/// each other, and with those of the registry.
pub(crate) fn port_clashes(new: &[&Converted], registered: &[api::Unit]) -> Vec<String> {
    let parsed = new
        .iter()
        .map(|unit| Parsed::parse(unit.name.clone(), &unit.content));
    let parsed: Vec<Parsed> = parsed.collect();
    let others = registered.iter().filter_map(|unit| {
        let is_new = new.iter().any(|it| it.name.as_str() == unit.name);
        let is_idle = unit.desired_state == TargetState::Inactive.to_string();
        let name = UnitName::parse(&unit.name)
            .ok()
            .filter(|_| !is_new && !is_idle)?;
        Some(Parsed::parse(name, &serialize(&unit.options)))
    });
    let others: Vec<Parsed> = others.collect();
    let mut warnings = Vec::new();
    for (at, unit) in parsed.iter().enumerate() {
        for other in parsed[..at].iter().chain(&others) {
            if let Some(port) = port_clash(unit, other) {
                warnings.push(format!(
                    "WARNING: {} and {} want the same port {port} of a machine; where both belong, the second one fails. \
                     Conflicts={} in the [X-Fleet] section of the imported unit keeps them apart.",
                    unit.name, other.name, other.name
                ));
            }
        }
    }
    warnings
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

#[cfg(test)]
mod tests {
    use fleet_core::unit::UnitFile;

    use super::*;

    const DAEMON_SET: &str = "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME}
spec:
  template:
    spec:
      containers:
      - {name: c, image: \"nginx:1\", ports: [{containerPort: 80, hostPort: 8000}]}
";

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |(name, text): &(&str, &str)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.to_str().expect("text").to_owned()
        };
        let paths = files.iter().map(write).collect();
        (folder, paths)
    }

    #[test]
    fn manifest_stands_for_its_units_in_its_place() {
        let app = DAEMON_SET.replace("NAME", "app");
        let (_folder, paths) = folder(&[("x.yaml", &app)]);
        let words = ["a".to_owned(), paths[0].clone(), "b.service".to_owned()];
        let names: Vec<String> = arguments(&words)
            .expect("converted")
            .into_iter()
            .map(|argument| match argument {
                Argument::Typed(word) => word,
                Argument::Converted(unit) => unit.name.to_string(),
            })
            .collect();
        assert_eq!(names, ["a", "app.service", "b.service"]);
    }

    #[test]
    fn one_refused_manifest_stops_all_of_them() {
        let app = DAEMON_SET.replace("NAME", "app");
        let bad = app.replace("image", "imgae");
        let (_folder, paths) = folder(&[("a.yaml", &app), ("b.yaml", &bad)]);
        let error = arguments(&paths).expect_err("refused").to_string();
        assert_eq!(
            error,
            format!("{} refused; nothing was converted", paths[1])
        );
        let (_folder, paths) = folder(&[("a.yaml", &app), ("b.yml", &app)]);
        let error = arguments(&paths).expect_err("refused").to_string();
        assert!(error.ends_with("both become app.service"), "{error}");
        assert!(arguments(&["/nowhere/a.yaml".to_owned()]).is_err());
    }

    #[test]
    fn units_that_want_one_port_are_named() {
        let (one, two) = (
            DAEMON_SET.replace("NAME", "a"),
            DAEMON_SET.replace("NAME", "b"),
        );
        let (_folder, paths) = folder(&[("a.yaml", &one), ("b.yaml", &two)]);
        let units = converted(&paths).expect("converted");
        let warnings = port_clashes(&[&units[0], &units[1]], &[]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("b.service and a.service want the same port 8000/tcp"));
        let registered = |state: &str| api::Unit {
            name: "a.service".to_owned(),
            desired_state: state.to_owned(),
            options: UnitFile::parse(units[0].content.as_bytes())
                .options()
                .to_vec(),
            ..api::Unit::default()
        };
        assert_eq!(
            port_clashes(&[&units[1]], &[registered("launched")]).len(),
            1
        );
        assert_eq!(
            port_clashes(&[&units[1]], &[registered("inactive")]).len(),
            0
        );
        assert_eq!(
            port_clashes(&[&units[0]], &[registered("launched")]).len(),
            0
        );
    }
}
