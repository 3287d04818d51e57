//! Colours for states, as systemctl has them: only what needs attention, and what is well.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

/// What `--color` asks for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

/// Paints text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Decides for what goes to stdout.
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

    /// The text in that style. What a terminal would obey must be out of it already.
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

/// The style of a unit in that active state.
pub(crate) fn active(state: &str) -> Style {
    match state {
        "active" => GOOD,
        "activating" | "deactivating" | "reloading" => MOVING,
        "failed" => BAD,
        _ => Style::new(),
    }
}

/// The style of a load state: all but `loaded` is bad.
pub(crate) fn load(state: &str) -> Style {
    expected(state, "loaded")
}

/// The style of a result: all but `success` is bad; units of some kinds have none.
pub(crate) fn result(result: &str) -> Style {
    expected(result, "success")
}

/// The style of what a plan does to a machine.
pub(crate) fn planned(action: &str) -> Style {
    match action {
        "start" => GOOD,
        "restart" | "reload" => MOVING,
        "stop" => BAD,
        _ => Style::new(),
    }
}

/// The style of a rollout's phase.
pub(crate) fn phase(phase: &str) -> Style {
    match phase {
        "rolling" | "paused" => MOVING,
        "rolling-back" | "rolled-back" => BAD,
        _ => Style::new(),
    }
}

/// The style of where a machine is on its way to a revision.
pub(crate) fn class(class: &str) -> Style {
    match class {
        "done" => GOOD,
        "starting" => MOVING,
        "failed" => BAD,
        _ => Style::new(),
    }
}

/// The word for a condition that holds or does not, and its style.
pub(crate) fn holds(holds: bool) -> (&'static str, Style) {
    if holds { ("yes", GOOD) } else { ("no ", BAD) }
}

/// The style of what may start on a machine.
pub(crate) fn scheduling(scheduling: &str) -> Style {
    match scheduling {
        "cordoned" | "drained" => MOVING,
        _ => Style::new(),
    }
}

/// The style of a count of what is bad.
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
