//! Waits for a condition for a limited time. An error names what did not happen.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The time between two checks. It is short compared with any wait of a test, and long compared
/// with a check on a host (a few milliseconds).
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds. An error from it counts as "not yet", and is reported only if the
/// time runs out.
///
/// # Errors
/// If `limit` has passed: what was waited for, and the last error of the condition.
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
