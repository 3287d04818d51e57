//! Waiting for a change (`?after=REVISION`).

use std::time::Duration;

use fleet_core::keys;

use crate::store::{Result, Store, StoreError};

/// How long an answer waits for a change. It is shorter than the minute after which proxies and
/// people give up.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Waits until something below the prefixes has changed since that registry revision, for a limited
/// time. Returns at once if there is no revision. The caller then answers with what the registry
/// has.
pub(super) async fn wait(store: &dyn Store, prefixes: &[&str], after: Option<u64>) -> Result<()> {
    let Some(after) = after else { return Ok(()) };
    // A restored registry may need long to reach that revision. Its present content is news.
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
