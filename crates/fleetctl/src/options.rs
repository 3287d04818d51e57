//! What fleetctl itself reads from a unit's options; everything else is for fleetd to judge.

use fleet_core::api::{Unit, UnitOption};
use sha1::{Digest as _, Sha1};

/// Whether `[X-Fleet] Global=` says that the unit belongs on every machine that matches.
pub(crate) fn is_global(options: &[UnitOption]) -> bool {
    last(options, "X-Fleet", "Global").is_some_and(|value| {
        ["true", "yes", "1", "on", "t"].contains(&value.to_ascii_lowercase().as_str())
    })
}

/// The `Description=` that systemd shows.
pub(crate) fn description(options: &[UnitOption]) -> Option<&str> {
    last(options, "Unit", "Description")
}

/// As in systemd, the last assignment wins.
fn last<'a>(options: &'a [UnitOption], section: &str, name: &str) -> Option<&'a str> {
    options
        .iter()
        .rfind(|option| option.section == section && option.name == name)
        .map(|option| option.value.as_str())
}

/// The hash that listings show, 40 hexadecimal digits: SHA-1 over the options as fleet 1.0 wrote them back.
pub(crate) fn hash_of(unit: &Unit) -> String {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for UnitOption {
        name,
        section,
        value,
    } in &unit.options
    {
        let line = format!("{name}={value}\n");
        match sections.iter_mut().find(|(known, _)| known == section) {
            Some((_, lines)) => lines.push_str(&line),
            None => sections.push((section, line)),
        }
    }
    let text: Vec<String> = sections
        .iter()
        .map(|(section, lines)| format!("[{section}]\n{lines}"))
        .collect();
    Sha1::digest(text.join("\n"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(section: &str, name: &str, value: &str) -> UnitOption {
        UnitOption {
            section: section.into(),
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn the_last_global_wins_in_any_case() {
        let global = |value| option("X-Fleet", "Global", value);
        for yes in ["true", "TRUE", "yes", "1", "on", "T"] {
            assert!(is_global(&[global("no"), global(yes)]), "{yes}");
        }
        assert!(!is_global(&[global("true"), global("false")]));
        assert!(!is_global(&[option("Service", "Global", "true")]));
        assert!(!is_global(&[]));
    }

    #[test]
    fn the_hash_is_the_one_that_fleet_1_0_showed() {
        let unit = Unit {
            options: vec![
                option("Unit", "Description", "Hello global"),
                option(
                    "Service",
                    "ExecStart",
                    "/bin/bash -c \"while true; do echo Hello, Global World; sleep 1; done\"",
                ),
                option("X-Fleet", "Global", "true"),
            ],
            ..Unit::default()
        };
        assert_eq!(hash_of(&unit), "e83c16edc9c35e3b86d078e1c4c8841f42bf397b");
    }
}
