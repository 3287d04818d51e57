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
}

/// What to do with the registry's present content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Act on it.
    Obey(Seen),
    /// Keep what runs. The text says why and what to do.
    Hold(String),
}

/// Judges a registry by its cluster id and store revision. `seen` is none on a machine that never acted on one.
pub fn judge(seen: Option<&Seen>, cluster: Option<&str>, revision: u64) -> Verdict {
    let accept = "to accept it as it is, stop fleetd here, remove desired.json from its state directory, and start it";
    let Some(cluster) = cluster else {
        return Verdict::Hold(match seen {
            None => {
                "the registry has no cluster id yet: waiting for an engine to make it".to_owned()
            }
            Some(seen) => format!(
                "the registry is empty, but this machine belongs to cluster {}: keeping what runs; restore the registry, or {accept}",
                seen.cluster
            ),
        });
    };
    match seen {
        Some(seen) if seen.cluster != cluster => Verdict::Hold(format!(
            "the registry is of cluster {cluster}, but this machine belongs to cluster {}: keeping what runs; mend etcd_servers, or {accept}",
            seen.cluster
        )),
        Some(seen) if revision < seen.revision => Verdict::Hold(format!(
            "the registry is at revision {revision}, but this machine has seen revision {}: it was restored from a backup; keeping what runs; {accept}",
            seen.revision
        )),
        _ => Verdict::Obey(Seen {
            cluster: cluster.to_owned(),
            revision,
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
        }
    }

    fn held(seen: Option<&Seen>, cluster: Option<&str>, revision: u64) -> bool {
        matches!(judge(seen, cluster, revision), Verdict::Hold(_))
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
}
