//! `--watch`: shows something again whenever it has changed.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use crate::output::{Reader, offer, reader_gone, talk};

/// Between two looks at what has no long poll. fleetd is asked again only while the command
/// watches.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// To the upper left corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Which look it is: the first one answers at once, later ones when there may be news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    First,
    Again,
}

/// What a look found.
pub(crate) struct Found<T> {
    pub(crate) text: String,
    /// Set once there is nothing more to see.
    pub(crate) end: Option<T>,
}

/// Shows what `look` finds, once; while `watch` is set, again whenever it finds something else, for
/// as long as anybody reads it. Ctrl-C ends the process, as it does anywhere.
///
/// On a terminal each snapshot takes the place of the one before; elsewhere it follows it.
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

/// The same until a look finds the end, and answers it; none if it was not to be watched, or the
/// reader has gone.
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
            // fleetd restarts, or its registry is away for a while: who watches wants to see it
            // come back.
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
