//! `--watch`: shows something again whenever it has changed.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use crate::output::{Reader, offer, reader_gone, talk};

/// The time between two requests for data without a long poll. fleetd is only asked again while the
/// command watches.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Moves to the upper left corner and clears everything below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The kind of request: the first returns at once, later ones when there may be changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    First,
    Again,
}

/// The result of a request.
pub(crate) struct Found<T> {
    pub(crate) text: String,
    /// The end of watching. `None` while there may be more to see.
    pub(crate) end: Option<T>,
}

/// Shows what `look` finds, once. With `watch`, shows it again whenever it changes, until stdout is
/// closed. Ctrl-C ends the process, as usual.
///
/// On a terminal each snapshot replaces the one before; elsewhere it follows it.
pub(crate) async fn show(
    watch: bool,
    mut look: impl AsyncFnMut(Look) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let endless = async |which| {
        Ok(Found::<Infallible> {
            text: look(which).await?,
            end: None,
        })
    };
    show_until(watch, endless).await.map(drop)
}

/// Shows what `look` finds until it finds the end, and returns it. `None` without `watch`, or if
/// stdout was closed.
pub(crate) async fn show_until<T>(
    watch: bool,
    mut look: impl AsyncFnMut(Look) -> anyhow::Result<Found<T>>,
) -> anyhow::Result<Option<T>> {
    let clear = if watch && io::stdout().is_terminal() {
        CLEAR
    } else {
        ""
    };
    let mut found = look(Look::First).await?;
    let mut reader = offer(format!("{clear}{}", found.text).as_bytes())?;
    let mut complained = String::new();
    let mut gone = pin!(reader_gone());
    while watch && found.end.is_none() && reader == Reader::There {
        let next = tokio::select! {
            () = &mut gone => break,
            next = look(Look::Again) => next,
        };
        match next {
            Ok(next) => {
                if next.text != found.text || !complained.is_empty() {
                    reader = offer(format!("{clear}{}", next.text).as_bytes())?;
                }
                complained.clear();
                found = next;
            }
            // fleetd restarts, or its registry is unreachable for a while. The user wants to see it
            // recover.
            Err(error) => {
                let complaint = format!("{error:#}");
                if complaint != complained {
                    talk(format_args!("{complaint}; trying again"));
                    complained = complaint;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Ok(found.end)
}
