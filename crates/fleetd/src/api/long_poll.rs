//! Waiting for something to change (`?after=REVISION`).

use std::time::Duration;

use fleet_core::keys;

use crate::store::{Result, Store, StoreError};

/// How long an answer waits for a change. Below the minute after which proxies and people give up.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Waits until something below the prefixes has changed since that registry revision, but not long; without one, not
/// at all. Whatever ends the wait, what there is then is the answer.
pub(super) async fn wait(store: &dyn Store, prefixes: &[&str], after: Option<u64>) -> Result<()> {
    let Some(after) = after else { return Ok(()) };
    // A registry that was restored may not come to that revision for long; what it has now is news.
    if after > store.list(&[keys::CLUSTER]).await?.revision {
        return Ok(());
    }
    match store.watch(prefixes, after).await {
        Ok(mut watch) => {
            let _ = tokio::time::timeout(LONGEST_WAIT, watch.next()).await;
            Ok(())
        }
        Err(StoreError::Compacted(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
