//! Wait for a condition, for a bounded time, and say what was waited for when it does not come.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Short against anything a test waits for, long against the cost of asking a host (a few
/// milliseconds).
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `condition` until it holds. An error from it counts as "not yet" and is told only if the
/// time runs out.
///
/// # Errors
/// When `limit` has passed: what was waited for, and the last error of the condition.
pub fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let answer = condition();
        match answer {
            Ok(true) => return Ok(()),
            Ok(false) | Err(_) if Instant::now() < end => thread::sleep(PAUSE),
            Ok(false) => bail!("after {limit:?} it is still not so that {what}"),
            Err(error) => {
                return Err(
                    error.context(format!("after {limit:?} it is still not so that {what}"))
                );
            }
        }
    }
}
