//! `--watch`: shows something again whenever it has changed.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use crate::output::{Reader, offer, reader_gone, talk};

/// Between two looks at what cannot be waited for. Only while somebody watches is fleetd asked again and again.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// To the upper left corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Which look it is: the first one answers at once, later ones when there may be news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    First,
    Again,
}

/// Shows what `look` finds, once; while `watch` is set, again whenever it finds something else, for as long as anybody
/// reads it. Ctrl-C ends the process, as it does anywhere.
///
/// On a terminal each snapshot takes the place of the one before; elsewhere it follows it.
pub(crate) async fn show(
    watch: bool,
    mut look: impl AsyncFnMut(Look) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let clear = if watch && io::stdout().is_terminal() {
        CLEAR
    } else {
        ""
    };
    let mut shown = look(Look::First).await?;
    let mut reader = offer(format!("{clear}{shown}").as_bytes())?;
    let mut complained = String::new();
    let mut gone = pin!(reader_gone());
    while watch && reader == Reader::There {
        let found = tokio::select! {
            () = &mut gone => break,
            found = look(Look::Again) => found,
        };
        match found {
            Ok(found) if found == shown && complained.is_empty() => {}
            Ok(found) => {
                complained.clear();
                shown = found;
                reader = offer(format!("{clear}{shown}").as_bytes())?;
            }
            // fleetd restarts, or its registry is away for a while: who watches wants to see it come back.
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
    Ok(())
}
