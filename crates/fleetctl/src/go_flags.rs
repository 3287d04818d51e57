//! Options as Go's flag package reads them, which scripts for fleet 1.0 still rely on.

use std::env;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::Resettable;

/// Makes flags behave as scripts for fleet 1.0 expect. `=true` and `=false` set and unset a flag,
/// the last one wins, and an empty variable of the environment counts as unset.
pub(crate) fn with_go_flags(command: clap::Command) -> clap::Command {
    command
        .args_override_self(true)
        .mut_args(|flag| {
            let variable = flag.get_env().and_then(env::var_os);
            match variable.is_some_and(|value| value.is_empty()) {
                true => flag.env(Resettable::Reset),
                false => flag,
            }
        })
        .mut_args(|flag| match flag.get_action() {
            ArgAction::SetTrue => flag
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .hide_default_value(true)
                .value_name("true|false")
                .value_parser(go_bool),
            _ => flag,
        })
        .mut_subcommands(with_go_flags)
}

/// Reads a boolean as Go's flags do.
fn go_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("must be true or false"),
    }
}

/// Reads a time such as `90s` or `15m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_why| "must be a time with its unit, such as 90s, 15m or 2h".to_owned())
}

/// Reads seconds such as `3` or `0.5`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be a number of seconds above 0, such as 3 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_needs_a_unit() {
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["abc", "", "10", "-1s"] {
            let error = duration(bad).expect_err(bad);
            assert!(error.contains("such as 90s"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_timeout_is_seconds_above_zero() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "NaN", "inf", "3s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
