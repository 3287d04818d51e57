//! Applies a transition to a unit's record.

use crate::machine::MachineId;
use crate::record::{Outcome, Past, UnitRecord};
use crate::rollout::Phase;

/// The end or change of phase of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The candidate becomes stable; the old stable revision moves into the history.
    Promote(Outcome),
    /// Machines go back to the stable revision from now on, because of this.
    RollBack(String),
    /// Nothing moves any more, because of this; the candidate failed on these machines.
    Pause(String, Vec<MachineId>),
    /// Every machine is back; the candidate moves into the history.
    EndRollback(Outcome),
}

/// A unit's record after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The record.
    pub record: UnitRecord,
    /// The revision that is neither stable nor the candidate any more.
    pub retired: Option<Past>,
}

impl Transition {
    /// Makes the change, at that time in milliseconds since 1970. None if the unit has no
    /// candidate: there is nothing to change.
    pub fn make(&self, record: &UnitRecord, now: u64) -> Option<Changed> {
        let mut record = record.clone();
        let mut candidate = record.candidate.take()?;
        let mut turn = |phase, reason: &String| {
            candidate.phase = phase;
            candidate.reason.clone_from(reason);
            candidate.since = now;
        };
        let retired = match self {
            Self::Promote(outcome) => {
                record.last = Some(outcome.clone());
                Some(Past {
                    revision: std::mem::replace(&mut record.stable, candidate.revision),
                    dropped: None,
                })
            }
            Self::EndRollback(outcome) => {
                record.last = Some(outcome.clone());
                Some(Past {
                    revision: candidate.revision,
                    dropped: Some(outcome.reason.clone()),
                })
            }
            Self::RollBack(reason) => {
                turn(Phase::RollingBack, reason);
                record.candidate = Some(candidate);
                None
            }
            Self::Pause(reason, failed) => {
                turn(Phase::Paused, reason);
                candidate.failed_on.extend(failed.iter().cloned());
                record.candidate = Some(candidate);
                None
            }
        };
        Some(Changed { record, retired })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::machine::MachineId;
    use crate::record::{Candidate, Outcome, Revision};
    use crate::rollout::Ended;
    use crate::unit::TargetState;

    fn rolling() -> UnitRecord {
        let revision = |number| Revision {
            number,
            at: 0,
            content: "[Service]\nExecStart=/x\n".into(),
            restarts: 0,
        };
        UnitRecord {
            target: TargetState::Launched,
            stable: revision(1),
            candidate: Some(Candidate {
                revision: revision(2),
                phase: Phase::Rolling,
                reason: String::new(),
                since: 0,
                failed_on: BTreeSet::new(),
            }),
            last: None,
            owners: BTreeSet::new(),
        }
    }

    fn ended(how: Ended) -> Outcome {
        Outcome {
            revision: 2,
            ended: how,
            reason: "why".to_owned(),
            at: 7,
        }
    }

    #[test]
    fn promoted_candidate_is_stable_and_old_stable_is_history() {
        let promote = Transition::Promote(ended(Ended::Done));
        let changed = promote.make(&rolling(), 7).expect("a candidate");
        assert_eq!(changed.record.stable.number, 2);
        assert_eq!(changed.record.candidate, None);
        assert_eq!(changed.record.last, Some(ended(Ended::Done)));
        let retired = changed.retired.expect("a past revision");
        assert_eq!((retired.revision.number, retired.dropped), (1, None));
    }

    #[test]
    fn a_candidate_that_was_rolled_back_is_history_with_the_reason() {
        let end = Transition::EndRollback(ended(Ended::RolledBack));
        let changed = end.make(&rolling(), 7).expect("a candidate");
        assert_eq!(changed.record.stable.number, 1);
        assert_eq!(changed.record.candidate, None);
        // The number is never given out again.
        assert_eq!(changed.record.next_number(), 3);
        let retired = changed.retired.expect("a past revision");
        assert_eq!(retired.revision.number, 2);
        assert_eq!(retired.dropped.as_deref(), Some("why"));
    }

    #[test]
    fn a_pause_and_a_rollback_say_why_and_since_when() {
        let machine = MachineId::parse(&"a".repeat(32)).expect("valid");
        let pause = Transition::Pause("it failed".to_owned(), vec![machine.clone()]);
        for (change, phase, failed_on) in [
            (pause, Phase::Paused, BTreeSet::from([machine])),
            (
                Transition::RollBack("it failed".to_owned()),
                Phase::RollingBack,
                BTreeSet::new(),
            ),
        ] {
            let changed = change.make(&rolling(), 7).expect("a candidate");
            assert_eq!(changed.retired, None);
            let candidate = changed.record.candidate.expect("still one");
            assert_eq!((candidate.phase, candidate.since), (phase, 7));
            assert_eq!(candidate.reason, "it failed");
            assert_eq!(candidate.failed_on, failed_on);
        }
    }

    #[test]
    fn without_a_candidate_nothing_changes() {
        let mut record = rolling();
        record.candidate = None;
        let change = Transition::RollBack(String::new());
        assert_eq!(change.make(&record, 7), None);
    }
}
