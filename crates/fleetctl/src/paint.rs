//! Colours for states, as in systemctl: states that need attention, and good states.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

/// The value of `--color`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

/// Colours text, or leaves it unchanged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Decides for stdout.
    pub(crate) fn stdout(when: When) -> Self {
        let auto = || {
            let stdout = io::stdout();
            stdout.is_terminal() && AutoStream::choice(&stdout) != ColorChoice::Never
        };
        Self {
            on: match when {
                When::Auto => auto(),
                When::Always => true,
                When::Never => false,
            },
        }
    }

    /// Returns the text in that style. Control characters must be removed before.
    pub(crate) fn text(self, style: Style, text: &str) -> Cow<'_, str> {
        if self.on && style != Style::new() {
            format!("{style}{text}{style:#}").into()
        } else {
            text.into()
        }
    }
}

const GOOD: Style = AnsiColor::Green.on_default();
const MOVING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Returns the style of an active state.
pub(crate) fn active(state: &str) -> Style {
    match state {
        "active" => GOOD,
        "activating" | "deactivating" | "reloading" => MOVING,
        "failed" => BAD,
        _ => Style::new(),
    }
}

/// Returns the style of a load state: all but `loaded` are bad.
pub(crate) fn load(state: &str) -> Style {
    expected(state, "loaded")
}

/// Returns the style of a result: all but `success` are bad; some kinds of units have none.
pub(crate) fn result(result: &str) -> Style {
    expected(result, "success")
}

/// Returns the style of a plan's action on a machine.
pub(crate) fn planned(action: &str) -> Style {
    match action {
        "start" => GOOD,
        "restart" | "reload" => MOVING,
        "stop" => BAD,
        _ => Style::new(),
    }
}

/// Returns the style of a rollout's phase.
pub(crate) fn phase(phase: &str) -> Style {
    match phase {
        "rolling" | "paused" => MOVING,
        "rolling-back" | "rolled-back" => BAD,
        _ => Style::new(),
    }
}

/// Returns the style of a machine's class in an update.
pub(crate) fn class(class: &str) -> Style {
    match class {
        "done" => GOOD,
        "starting" => MOVING,
        "failed" => BAD,
        _ => Style::new(),
    }
}

/// Returns the word and the style for a condition that holds or fails.
pub(crate) fn holds(holds: bool) -> (&'static str, Style) {
    if holds { ("yes", GOOD) } else { ("no ", BAD) }
}

/// Returns the style of a machine's scheduling.
pub(crate) fn scheduling(scheduling: &str) -> Style {
    match scheduling {
        "cordoned" | "drained" => MOVING,
        _ => Style::new(),
    }
}

/// Returns the style of a count of bad things.
pub(crate) fn any(count: usize) -> Style {
    if count > 0 { BAD } else { Style::new() }
}

fn expected(word: &str, good: &str) -> Style {
    if word.is_empty() || word == good {
        Style::new()
    } else {
        BAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_painted_as_systemctl_does() {
        let on = Paint { on: true };
        assert_eq!(
            on.text(active("failed"), "dead"),
            "\x1b[1m\x1b[31mdead\x1b[0m"
        );
        assert_eq!(on.text(active("active"), "active"), "\x1b[32mactive\x1b[0m");
        assert_eq!(
            on.text(active("activating"), "start"),
            "\x1b[33mstart\x1b[0m"
        );
        assert_eq!(on.text(active("inactive"), "inactive"), "inactive");
        assert_eq!(on.text(load("loaded"), "loaded"), "loaded");
        assert_eq!(on.text(result(""), ""), "");
    }

    #[test]
    fn without_colour_text_stays_as_it_is() {
        assert_eq!(
            Paint { on: false }.text(active("failed"), "failed"),
            "failed"
        );
    }
}
