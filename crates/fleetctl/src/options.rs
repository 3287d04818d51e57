//! The options of a unit that fleetctl itself reads. fleetd judges all others.

use fleet_core::unit::UnitOption;

/// Returns whether `[X-Fleet] Global=` makes the unit global.
pub(crate) fn is_global(options: &[UnitOption]) -> bool {
    last(options, "X-Fleet", "Global").is_some_and(|value| {
        ["true", "yes", "1", "on", "t"].contains(&value.to_ascii_lowercase().as_str())
    })
}

/// Returns the `Description=` that systemd shows.
pub(crate) fn description(options: &[UnitOption]) -> Option<&str> {
    last(options, "Unit", "Description")
}

/// Returns the last assignment, which wins in systemd.
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
    fn last_global_wins_in_upper_and_lower_case() {
        let global = |value| option("X-Fleet", "Global", value);
        for yes in ["true", "TRUE", "yes", "1", "on", "T"] {
            assert!(is_global(&[global("no"), global(yes)]), "{yes}");
        }
        assert!(!is_global(&[global("true"), global("false")]));
        assert!(!is_global(&[option("Service", "Global", "true")]));
        assert!(!is_global(&[]));
    }
}
