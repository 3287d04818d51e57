//! Which revision of a unit a machine runs.

use crate::record::{UnitRecord, must_restart};

/// The revision of a unit that a machine last accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<'a> {
    /// The revision's number.
    pub revision: u64,
    /// The part of it that a running process depends on (`Revision::process`).
    pub process: &'a str,
    /// Whether the unit was to be launched, not only loaded.
    pub launched: bool,
}

/// The revision that a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The stable one.
    Stable,
    /// The candidate.
    Candidate,
    /// The one it has, although the registry has another: going there restarts the unit, and waits
    /// for a grant.
    Keep,
}

/// Chooses for one machine. `granted`: the revision that a grant to its present session, for this
/// unit, names. `stable_process`: what a process of the stable revision depends on.
pub fn choose(
    record: &UnitRecord,
    granted: Option<u64>,
    present: Option<Present<'_>>,
    stable_process: &str,
) -> Choice {
    let stable = record.stable.number;
    let candidate = record.candidate.as_ref().map(|it| it.revision.number);
    if candidate.is_some() && granted == candidate {
        return Choice::Candidate;
    }
    if granted == Some(stable) {
        return Choice::Stable;
    }
    match present {
        Some(present) if Some(present.revision) == candidate => Choice::Candidate,
        Some(present)
            if present.revision != stable
                && present.launched
                && must_restart(present.process, stable_process) =>
        {
            Choice::Keep
        }
        _ => Choice::Stable,
    }
}

/// Whether a machine that knows this record may say that it has taken a grant of that revision into
/// account. News of units and of grants come separately: a revision that it has not heard of yet
/// may still set it going.
pub fn confirms(record: &UnitRecord, granted: u64) -> bool {
    granted <= record.newest().number.max(record.stable.number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::record::{Candidate, Revision};
    use crate::rollout::Phase;
    use crate::unit::TargetState;

    fn record(stable: u64, candidate: Option<u64>) -> UnitRecord {
        let revision = |number| Revision {
            number,
            at: 0,
            content: "[Service]\nExecStart=/x\n".into(),
            restarts: 0,
        };
        UnitRecord {
            target: TargetState::Launched,
            stable: revision(stable),
            candidate: candidate.map(|number| Candidate {
                revision: revision(number),
                phase: Phase::Rolling,
                reason: String::new(),
                since: 0,
                failed_on: BTreeSet::new(),
            }),
            last: None,
            owners: BTreeSet::new(),
        }
    }

    fn has(revision: u64, process: &str) -> Option<Present<'_>> {
        Some(Present {
            revision,
            process,
            launched: true,
        })
    }

    #[test]
    fn machine_without_the_unit_takes_stable_unless_granted() {
        let rolling = record(1, Some(2));
        assert_eq!(choose(&rolling, None, None, "p1"), Choice::Stable);
        assert_eq!(choose(&rolling, Some(2), None, "p1"), Choice::Candidate);
    }

    #[test]
    fn a_machine_that_has_it_moves_by_grant_only() {
        let rolling = record(1, Some(2));
        assert_eq!(choose(&rolling, None, has(1, "p1"), "p1"), Choice::Stable);
        assert_eq!(
            choose(&rolling, Some(2), has(1, "p1"), "p1"),
            Choice::Candidate
        );
        // A grant that went with an earlier session takes nothing back.
        assert_eq!(
            choose(&rolling, None, has(2, "p2"), "p1"),
            Choice::Candidate
        );
        assert_eq!(
            choose(&rolling, Some(1), has(2, "p2"), "p1"),
            Choice::Stable
        );
    }

    #[test]
    fn a_machine_that_missed_an_update_waits_for_its_turn() {
        assert_eq!(
            choose(&record(3, None), None, has(2, "p2"), "p3"),
            Choice::Keep
        );
        assert_eq!(
            choose(&record(3, None), Some(2), has(2, "p2"), "p3"),
            Choice::Keep
        );
        assert_eq!(
            choose(&record(3, None), Some(3), has(2, "p2"), "p3"),
            Choice::Stable
        );
    }

    #[test]
    fn an_update_on_top_of_another_moves_nobody_by_itself() {
        let second = record(1, Some(3));
        assert_eq!(choose(&second, Some(2), has(2, "p2"), "p1"), Choice::Keep);
        assert_eq!(choose(&second, None, has(1, "p1"), "p1"), Choice::Stable);
    }

    #[test]
    fn a_grant_of_a_revision_that_is_not_known_yet_is_not_confirmed() {
        assert!(!confirms(&record(1, None), 2));
        assert!(confirms(&record(1, Some(3)), 2));
        assert!(confirms(&record(3, None), 3));
    }

    #[test]
    fn what_restarts_nothing_needs_no_grant() {
        // It was restarted once more than the stable revision asks for.
        assert_eq!(
            choose(&record(3, None), None, has(2, "p+2"), "p"),
            Choice::Stable
        );
        assert_eq!(
            choose(&record(3, None), None, has(2, "p+2"), "p+3"),
            Choice::Keep
        );
        assert_eq!(
            choose(&record(3, None), None, has(2, "p"), "p"),
            Choice::Stable
        );
        let loaded = Some(Present {
            revision: 2,
            process: "p2",
            launched: false,
        });
        assert_eq!(choose(&record(3, None), None, loaded, "p3"), Choice::Stable);
    }
}
