//! The walls inside fleetd: which of its modules may know which others. `ARCHITECTURE.md` draws
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module, and all that it may use of the crate beside itself.
const WALLS: [(&str, &[&str]); 8] = [
    ("store", &["atomic_file"]),
    ("mirror", &["backoff", "health", "store"]),
    ("systemd", &[]),
    ("registry", &["store", "units_dir"]),
    ("units_dir", &["atomic_file", "backoff", "state_file"]),
    (
        "engine",
        &["backoff", "health", "mirror", "registry", "store"],
    ),
    (
        "agent",
        &[
            "backoff",
            "health",
            "mirror",
            "state_file",
            "store",
            "systemd",
        ],
    ),
    ("api", &["registry", "store"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/fleetd/src")
}

/// Returns the text of every source file of a module.
fn texts(module: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left = vec![
        source().join(module),
        source().join(module).with_extension("rs"),
    ];
    while let Some(path) = left.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            left.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|it| it == "rs")
            && let Ok(text) = fs::read_to_string(&path)
        {
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "no module {module}");
    found
}

/// Returns the modules of the crate that a text names, also those in braces.
fn used(text: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let mut names = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let group = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next());
        let paths = group.map_or_else(|| vec![rest], |group| group.split(',').collect());
        for path in paths {
            let path = path.trim_start();
            let end = path.find(|letter| !is_name(letter)).unwrap_or(path.len());
            names.insert(path[..end].to_owned());
        }
    }
    names.remove("");
    names
}

#[test]
fn module_of_fleetd_uses_only_what_it_may_know() {
    for (module, may) in WALLS {
        for (path, text) in texts(module) {
            for name in used(&text) {
                let is_allowed = name == module || may.contains(&name.as_str());
                assert!(is_allowed, "{} uses crate::{name}", path.display());
            }
        }
    }
}

#[test]
fn store_knows_no_units() {
    for (path, text) in texts("store") {
        let knows = text.contains("fleet_core::");
        assert!(!knows, "{} uses fleet_core", path.display());
    }
}

#[test]
fn use_of_a_module_is_found_however_it_is_written() {
    let text = "use crate::store::Write;\nuse crate::{agent::Agent, engine};\nlet it = crate::api::state();";
    let names: Vec<String> = used(text).into_iter().collect();
    assert_eq!(names, ["agent", "api", "engine", "store"]);
}
