//! The limits of etcd, checked before either store acts on a request. So a request that passes on a
//! single machine also passes in a cluster.

use super::{Guard, LeaseId, Result, StoreError, Write};

/// etcd's `--max-txn-ops`. etcd counts guards and writes separately.
const MAX_OPERATIONS: usize = 128;
/// etcd's `--max-request-bytes`.
const MAX_BYTES: usize = 3 * 512 * 1024;
/// The largest overhead of etcd's encoding for a key and its value, with the key prefix.
const OVERHEAD_BYTES: usize = 96;

/// Returns whether these writes fit into one commit with so many guards, by number and size.
pub(crate) fn fits<'a>(guards: usize, writes: impl Iterator<Item = &'a Write>) -> bool {
    let add = |(count, bytes), write| (count + 1, bytes + size(write));
    let (count, bytes) = writes.fold((0, 0), add);
    count.max(guards) <= MAX_OPERATIONS && bytes <= MAX_BYTES
}

/// Checks a commit before it is made.
pub(super) fn check(guards: &[Guard], writes: &[Write]) -> Result<()> {
    let operations = guards.len().max(writes.len());
    if operations > MAX_OPERATIONS {
        return Err(StoreError::Rejected(format!(
            "a commit of {operations} operations is over the limit of {MAX_OPERATIONS}; split it"
        )));
    }
    let bytes: usize = writes.iter().map(size).sum();
    if bytes > MAX_BYTES {
        return Err(StoreError::Rejected(format!(
            "a commit of {bytes} bytes is over the limit of {MAX_BYTES}; make it smaller"
        )));
    }
    for (at, write) in writes.iter().enumerate() {
        let Write::Put { key, lease, .. } = write else {
            continue;
        };
        // Lease 0 means "no lease" to etcd, so the key would stay for good.
        if *lease == Some(LeaseId(0)) {
            return Err(StoreError::LeaseLost);
        }
        let others = writes.iter().enumerate().filter(|(other, _)| *other != at);
        if others
            .map(|(_, other)| other)
            .any(|other| touches(other, key))
        {
            return Err(StoreError::Rejected(format!(
                "key {key} is changed twice in one commit; use two commits"
            )));
        }
    }
    Ok(())
}

/// Returns the prefixes without those that another one covers, so that a key is listed or watched
/// once.
pub(super) fn disjoint<'a>(prefixes: &[&'a str]) -> Vec<&'a str> {
    let mut kept = prefixes.to_vec();
    kept.sort_unstable();
    // In this order, a prefix is directly before those that it covers.
    kept.dedup_by(|next, covering| next.starts_with(*covering));
    kept
}

/// Returns the prefixes that a watch follows.
pub(super) fn watched(prefixes: &[&str]) -> Result<Vec<String>> {
    if prefixes.is_empty() {
        return Err(StoreError::Rejected("a watch needs a prefix".into()));
    }
    Ok(disjoint(prefixes).into_iter().map(str::to_owned).collect())
}

fn size(write: &Write) -> usize {
    OVERHEAD_BYTES
        + match write {
            Write::Put { key, value, .. } => key.len() + value.len(),
            Write::Delete(key) | Write::DeletePrefix(key) => key.len(),
        }
}

fn touches(write: &Write, key: &str) -> bool {
    match write {
        Write::Put { key: other, .. } | Write::Delete(other) => other == key,
        Write::DeletePrefix(prefix) => key.starts_with(prefix.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covered_prefix_is_dropped() {
        assert_eq!(disjoint(&["b/", "a/x", "a/", "a/", "c"]), ["a/", "b/", "c"]);
        assert_eq!(disjoint(&["a/", ""]), [""]);
        assert_eq!(disjoint(&["a/", "a", "ab"]), ["a"]);
    }
}
