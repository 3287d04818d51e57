//! What fleetctl itself reads from a unit's options; everything else is for fleetd to judge.

use fleet_core::unit::UnitOption;

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
}
