//! Whether what the registry says may be acted on, or must be held against what was seen before.
//!
//! A registry that was wiped, restored from a backup, or is another cluster's looks like an instruction to stop
//! everything. It is none: the agent keeps what runs and says so.

use serde::{Deserialize, Serialize};

/// The registry that this machine has acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its cluster id.
    pub cluster: String,
    /// The newest store revision that was acted on.
    pub revision: u64,
    /// It was older than that at some time since: its revisions mean nothing any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
}

/// What to do with the registry's present content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Act on it.
    Obey(Seen),
    /// Keep what runs.
    Hold {
        /// Why, and what to do.
        reason: String,
        /// What to remember of it from now on.
        seen: Option<Seen>,
    },
}

const ACCEPT: &str = "to accept it as it is, stop fleetd here, remove desired.json from its state directory, and start it";

/// Judges a registry by its cluster id and store revision. `seen` is none on a machine that never acted on one.
pub fn judge(seen: Option<&Seen>, cluster: Option<&str>, revision: u64) -> Verdict {
    let hold = |reason| Verdict::Hold {
        reason,
        seen: seen.cloned(),
    };
    match (seen, cluster) {
        (None, None) => {
            hold("the registry has no cluster id yet: waiting for an engine to make it".to_owned())
        }
        (None, Some(cluster)) => Verdict::Obey(Seen {
            cluster: cluster.to_owned(),
            revision,
            restored: false,
        }),
        (Some(seen), None) => hold(format!(
            "the registry is empty, but this machine belongs to cluster {}: keeping what runs; restore the registry, or {ACCEPT}",
            seen.cluster
        )),
        (Some(seen), Some(cluster)) if seen.cluster != cluster => hold(format!(
            "the registry is of cluster {cluster}, but this machine belongs to cluster {}: keeping what runs; mend etcd_servers, or {ACCEPT}",
            seen.cluster
        )),
        (Some(seen), Some(_)) if seen.restored || revision < seen.revision => Verdict::Hold {
            reason: format!(
                "the registry was restored from a backup: it is older than revision {}, which this machine has seen; keeping what runs; {ACCEPT}",
                seen.revision
            ),
            seen: Some(Seen {
                restored: true,
                ..seen.clone()
            }),
        },
        (Some(seen), Some(_)) => Verdict::Obey(Seen {
            revision,
            ..seen.clone()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            cluster: "c1".to_owned(),
            revision: 100,
            restored: false,
        }
    }

    fn held(seen: Option<&Seen>, cluster: Option<&str>, revision: u64) -> bool {
        matches!(judge(seen, cluster, revision), Verdict::Hold { .. })
    }

    #[test]
    fn the_same_cluster_moving_forward_is_obeyed() {
        assert!(!held(None, Some("c1"), 5));
        assert!(!held(Some(&seen()), Some("c1"), 100));
        let Verdict::Obey(now) = judge(Some(&seen()), Some("c1"), 120) else {
            panic!("held")
        };
        assert_eq!(now.revision, 120);
    }

    #[test]
    fn an_empty_an_older_and_another_registry_are_held() {
        assert!(held(None, None, 5), "no engine has made the id yet");
        assert!(held(Some(&seen()), None, 200), "wiped");
        assert!(held(Some(&seen()), Some("c1"), 99), "restored");
        assert!(held(Some(&seen()), Some("c2"), 200), "another cluster");
    }

    #[test]
    fn a_restored_registry_stays_held_when_it_has_grown_past_what_was_seen() {
        let Verdict::Hold { seen, .. } = judge(Some(&seen()), Some("c1"), 99) else {
            panic!("obeyed")
        };
        assert!(held(seen.as_ref(), Some("c1"), 5_000));
    }
}
