//! The judgement: what a machine that remembers one registry does about the one it sees.

use super::{ACCEPT, ClusterKey, Identity, Judgement, Memory, Seen};

/// Judges a registry by what is seen of it.
pub fn judge(memory: &Memory, identity: &Identity) -> Judgement {
    let seen = match memory {
        Memory::Never => return first(identity),
        Memory::Lost(why) => {
            return Judgement::Hold {
                reason: why.clone(),
                seen: None,
            };
        }
        Memory::Of(seen) => seen,
    };
    if let Some(seen) = accepted(seen, identity) {
        return Judgement::Obey(seen);
    }
    let is_older = older_than(seen, identity).is_some();
    match (wrong(seen, identity), &identity.cluster) {
        (Some(reason), _) => Judgement::Hold {
            reason,
            seen: Some(Seen {
                // Only of its own registry, which may grow past what was seen.
                restored: seen.restored || (is_older && identity.is_of(&seen.cluster)),
                ..seen.clone()
            }),
        },
        (None, cluster) => Judgement::Obey(Seen {
            revision: identity.revision,
            instructed: identity.instructed.unwrap_or(seen.instructed),
            made: cluster.made().unwrap_or(seen.made),
            accepted: newest(seen.accepted, identity.accepted_at()),
            ..seen.clone()
        }),
    }
}

/// Judges the first registry of a machine.
fn first(identity: &Identity) -> Judgement {
    match &identity.cluster {
        ClusterKey::Absent => Judgement::New {
            reason: "the registry has no cluster id yet: waiting for an engine to make it"
                .to_owned(),
        },
        ClusterKey::Unreadable(why) => Judgement::Hold {
            reason: unreadable(why),
            seen: None,
        },
        ClusterKey::Is { id, made } => Judgement::Obey(Seen {
            cluster: id.clone(),
            made: *made,
            revision: identity.revision,
            instructed: identity.instructed.unwrap_or_default(),
            restored: false,
            accepted: newest(0, identity.accepted_at()),
        }),
    }
}

/// Whether an acceptance's `at` comes after another's. They form a circle, and the half ahead of a
/// value is later than it. So a value of no real clock (a damaged one, `u64::MAX`) counts for
/// nothing, and a newer one always exists.
pub(super) fn is_newer(at: u64, than: u64) -> bool {
    let ahead = at.wrapping_sub(than);
    ahead != 0 && ahead <= u64::MAX / 2
}

pub(super) fn newest(one: u64, other: u64) -> u64 {
    if is_newer(other, one) { other } else { one }
}

/// The revision that was seen, and that the registry does not have any more.
fn older_than(seen: &Seen, identity: &Identity) -> Option<u64> {
    if identity.revision < seen.revision {
        return Some(seen.revision);
    }
    let lacks = identity.instructed.is_some_and(|it| it < seen.instructed);
    lacks.then_some(seen.instructed)
}

pub(super) fn unreadable(why: &str) -> String {
    format!(
        "the registry's cluster id (the key `cluster`) cannot be read: {why}; keeping what runs"
    )
}

/// Returns the problem with a registry, for a machine that has seen that one.
fn wrong(seen: &Seen, identity: &Identity) -> Option<String> {
    let belongs = &seen.cluster;
    match &identity.cluster {
        ClusterKey::Absent => Some(format!(
            "the registry is empty, but this machine belongs to cluster {belongs}: keeping what runs; restore the registry, or, {ACCEPT}"
        )),
        ClusterKey::Unreadable(why) => Some(unreadable(why)),
        ClusterKey::Is { id, .. } if id != belongs => Some(format!(
            "the registry is of cluster {id}, but this machine belongs to cluster {belongs}: keeping what runs; mend etcd_servers, or, {ACCEPT}"
        )),
        ClusterKey::Is { made, .. } if seen.made != 0 && *made != seen.made => Some(format!(
            "the registry was wiped and filled again: its id was made anew since this machine has seen it; keeping what runs; {ACCEPT}"
        )),
        ClusterKey::Is { .. } if seen.restored || older_than(seen, identity).is_some() => {
            Some(format!(
                "the registry was restored from a backup: it is older than revision {}, which this machine has seen; keeping what runs; {ACCEPT}",
                older_than(seen, identity).unwrap_or(seen.revision)
            ))
        }
        ClusterKey::Is { .. } => None,
    }
}

/// Returns what to remember if a person has accepted this registry for machines of that cluster
/// since.
fn accepted(seen: &Seen, identity: &Identity) -> Option<Seen> {
    let (acceptance, written) = identity.acceptance.as_ref()?;
    let ClusterKey::Is { id, made } = &identity.cluster else {
        return None;
    };
    let counts = acceptance.from == seen.cluster
        && acceptance.cluster == *id
        && is_newer(acceptance.at, seen.accepted)
        // What was listed before is not what somebody accepted.
        && identity.revision >= *written;
    counts.then(|| Seen {
        cluster: id.clone(),
        made: *made,
        revision: identity.revision,
        instructed: identity.instructed.unwrap_or_default(),
        restored: false,
        accepted: acceptance.at,
    })
}
