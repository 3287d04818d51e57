//! Decides about a unit's revisions when it gets a newer one.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Candidate, HISTORY_KEPT, Past, Revision, UnitRecord};
use crate::rollout::Phase;
use crate::unit::{TargetState, UnitFile};

/// A unit with a newer revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// The unit as it is to be written.
    pub record: UnitRecord,
    /// The revisions that go into the history with it.
    pub retired: Vec<Past>,
}

/// Gives a unit, as it is to be written otherwise, a newer revision.
///
/// It is rolled out if it may restart what runs. Then the unit was and stays launched, and a
/// process would differ, or machines already move to another revision. Else there is nothing to be
/// careful about, and it is stable at once. `held`: why it is to wait for a person, if it is rolled
/// out.
pub fn succeed(
    record: UnitRecord,
    was: TargetState,
    next: Revision,
    held: Option<String>,
    now: u64,
) -> Succession {
    let launched = (was, record.target) == (TargetState::Launched, TargetState::Launched);
    let mut record = record;
    let mut retired = Vec::new();
    let in_flight = record.candidate.take();
    let rolls = launched && (in_flight.is_some() || process(&record.stable) != process(&next));
    if let Some(replaced) = in_flight {
        retired.push(match replaced.phase {
            // On its way out for a reason: that stays known of it.
            Phase::RollingBack => Past {
                revision: replaced.revision,
                dropped: Some(replaced.reason),
            },
            Phase::Rolling | Phase::Paused => Past::replaced(replaced.revision, next.number),
        });
    }
    if rolls {
        record.candidate = Some(Candidate {
            revision: next,
            phase: match held {
                Some(_) => Phase::Paused,
                None => Phase::Rolling,
            },
            reason: held.unwrap_or_default(),
            since: now,
            failed_on: BTreeSet::new(),
        });
    } else {
        let before = std::mem::replace(&mut record.stable, next);
        retired.push(Past {
            revision: before,
            dropped: None,
        });
    }
    Succession { record, retired }
}

/// The part of the revision that a running process depends on.
pub(super) fn process(revision: &Revision) -> String {
    revision.process(&UnitFile::parse(revision.content.as_bytes()))
}

/// Returns the numbers of the older revisions to drop when these are retired, so that
/// [`HISTORY_KEPT`] stay. These are the lowest, but never the last stable one. However many were
/// tried and dropped since, an undo finds it.
///
/// `kept`: by number, whether it was stable once.
pub fn surplus(kept: &BTreeMap<u64, bool>, retired: &[Past]) -> Vec<u64> {
    let mut all = kept.clone();
    for past in retired {
        all.insert(past.revision.number, past.dropped.is_none());
    }
    let surplus = all.len().saturating_sub(HISTORY_KEPT);
    let last_stable = all
        .iter()
        .rfind(|(_, stable)| **stable)
        .map(|(number, _)| *number);
    let spared = all.into_keys().filter(|it| Some(*it) != last_stable);
    spared.take(surplus).collect()
}
