//! fleet reads hand-written unit files as the real systemd does. `systemd/README.md` says how that
//! was recorded.

#![allow(
    clippy::disallowed_methods,
    reason = "the corpus is files; the core itself reads none"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fleet_core::unit::{Severity, UnitFile};

/// The dependencies that systemd adds to every service.
const IMPLIED: [&str; 4] = [
    "basic.target",
    "sysinit.target",
    "system.slice",
    "systemd-journald.socket",
];

/// Files that systemd loads with a warning in its journal. fleet 1.0 refused all of them but the
/// NUL. fleet also refuses the NUL: a file with one is no text.
const REFUSED_ALL_THE_SAME: [&str; 4] = ["colon", "header-with-bracket-inside", "no-equals", "nul"];

#[test]
fn fleet_reads_every_file_as_systemd_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("is readable").path();
        if path.extension().is_none_or(|suffix| suffix != "service") {
            continue;
        }
        let case = path
            .file_stem()
            .expect("has a name")
            .to_string_lossy()
            .into_owned();
        let file = UnitFile::parse(&fs::read(&path).expect("is readable"));
        let record = fs::read_to_string(path.with_extension("expected")).expect("is recorded");
        check(
            &case,
            &file,
            &record
                .lines()
                .filter_map(|line| line.split_once('='))
                .collect(),
        );
        cases += 1;
    }
    assert!(cases > 40, "{cases} cases");
}

fn check(case: &str, file: &UnitFile, systemd: &BTreeMap<&str, &str>) {
    let loaded = systemd["LoadState"] == "loaded";
    let refused = file
        .notes()
        .iter()
        .any(|note| note.severity == Severity::Error);
    assert_eq!(
        refused,
        !loaded || REFUSED_ALL_THE_SAME.contains(&case),
        "{case}: {:?}",
        file.notes()
    );

    let description = match file.description() {
        "" => format!("{case}.service"),
        text => text.to_owned(),
    };
    assert_eq!(description, systemd["Description"], "{case}");
    if !loaded {
        // systemd drops the other settings that it had read.
        return;
    }
    let identifier = file.last("Service", "SyslogIdentifier");
    assert_eq!(
        identifier.unwrap_or_default(),
        systemd["SyslogIdentifier"],
        "{case}"
    );
    for (section, key) in [("Unit", "Documentation"), ("Service", "Environment")] {
        let found = words(&file.values(section, key).join(" "));
        assert_eq!(found, words(systemd[key]), "{case}: {key}");
    }
    for key in ["After", "Requires"] {
        // An empty assignment does not reset dependencies.
        let found: BTreeSet<_> = file
            .assignments()
            .iter()
            .filter(|a| a.section == "Unit" && a.key == key)
            .flat_map(|a| a.value.split_ascii_whitespace())
            .collect();
        let mut recorded: BTreeSet<_> = systemd[key].split_ascii_whitespace().collect();
        recorded.retain(|name| !IMPLIED.contains(name));
        assert_eq!(found, recorded, "{case}: {key}");
    }
}

/// Returns the words of a list, without quotes around any of them.
fn words(list: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in list.chars() {
        match (c, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (' ', _) if !quoted => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
