//! The problems of units. The cluster's `status` lists them beside those that machines report.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::place::{Reason, Verdict};
use crate::record::UnitRecord;
use crate::rollout::{Ended, Phase};

/// The kind of a problem, for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// A unit failed on a machine.
    Failed,
    /// The newest update of a unit was rolled back.
    RolledBack,
    /// An update is paused until an operator resumes or undoes it.
    Paused,
    /// A unit belongs on no machine.
    NoMachine,
    /// A machine has a problem itself, or a value of the registry cannot be read.
    #[default]
    #[serde(other)]
    Other,
}

impl ProblemKind {
    /// Returns the word that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Paused => "paused",
            Self::NoMachine => "no-machine",
            Self::Other => "other",
        }
    }

    /// Returns whether it is a problem of a machine or the registry.
    pub fn is_other(&self) -> bool {
        *self == Self::Other
    }
}

/// A problem of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitProblem {
    /// The unit failed on a machine.
    Failed(String),
    /// The newest update was rolled back, and no update followed.
    RolledBack {
        /// The revision that was rolled back.
        revision: u64,
        /// The reason.
        reason: String,
    },
    /// The update is paused.
    Paused {
        /// The candidate's number.
        revision: u64,
        /// The reason; empty if none was given.
        reason: String,
    },
    /// The unit belongs on no live machine. Each reason has the number of its machines.
    NoMachine(BTreeMap<String, usize>),
}

impl UnitProblem {
    /// Returns its kind.
    pub fn kind(&self) -> ProblemKind {
        match self {
            Self::Failed(_) => ProblemKind::Failed,
            Self::RolledBack { .. } => ProblemKind::RolledBack,
            Self::Paused { .. } => ProblemKind::Paused,
            Self::NoMachine(_) => ProblemKind::NoMachine,
        }
    }
}

/// The number of reasons that are written out.
const REASONS: usize = 3;

impl fmt::Display for UnitProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => write!(f, "{why}"),
            Self::RolledBack { revision, reason } => {
                write!(f, "revision {revision} was rolled back: {reason}")
            }
            Self::Paused { revision, reason } if reason.is_empty() => {
                write!(f, "revision {revision} is paused")
            }
            Self::Paused { revision, reason } => {
                write!(f, "revision {revision} is paused: {reason}")
            }
            Self::NoMachine(reasons) => {
                write!(f, "it runs on no machine: ")?;
                for (at, (reason, machines)) in reasons.iter().take(REASONS).enumerate() {
                    let separator = if at > 0 { "; " } else { "" };
                    let noun = if *machines == 1 {
                        "machine"
                    } else {
                        "machines"
                    };
                    write!(f, "{separator}{reason} ({machines} {noun})")?;
                }
                match reasons.len().saturating_sub(REASONS) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more reasons"),
                }
            }
        }
    }
}

/// Returns the problems of a unit that its record shows. `verdicts` says, for each distinct
/// metadata of live machines, whether the unit belongs there, with the number of machines.
pub fn of_record(
    record: &UnitRecord,
    verdicts: impl IntoIterator<Item = (Verdict, usize)>,
) -> Vec<UnitProblem> {
    of_rollout(record)
        .into_iter()
        .chain(of_placement(verdicts))
        .collect()
}

fn of_rollout(record: &UnitRecord) -> Option<UnitProblem> {
    if let Some(candidate) = &record.candidate {
        let (revision, reason) = (candidate.revision.number, candidate.reason.clone());
        return match candidate.phase {
            Phase::Paused => Some(UnitProblem::Paused { revision, reason }),
            _ => None,
        };
    }
    // A revision that was rolled back earlier does not judge the one that followed it.
    let last = record.last.as_ref()?;
    let newest = last.ended == Ended::RolledBack && last.revision > record.stable.number;
    newest.then(|| UnitProblem::RolledBack {
        revision: last.revision,
        reason: last.reason.clone(),
    })
}

fn of_placement(verdicts: impl IntoIterator<Item = (Verdict, usize)>) -> Option<UnitProblem> {
    let mut reasons = BTreeMap::new();
    for (verdict, machines) in verdicts {
        match verdict {
            Verdict::Run
            | Verdict::Not(Reason::Inactive | Reason::Template | Reason::NotGlobal) => return None,
            Verdict::Not(reason) => *reasons.entry(reason.to_string()).or_default() += machines,
        }
    }
    (!reasons.is_empty()).then_some(UnitProblem::NoMachine(reasons))
}

/// Returns a unit's problem on a machine, from the machine's report. `None` if the unit has not
/// failed.
pub fn of_report(active: &str, result: &str, failed: Option<&str>) -> Option<UnitProblem> {
    match failed {
        Some(why) => Some(UnitProblem::Failed(why.to_owned())),
        None if active == "failed" && ["", "success"].contains(&result) => {
            Some(UnitProblem::Failed("failed".to_owned()))
        }
        None if active == "failed" => Some(UnitProblem::Failed(format!("failed ({result})"))),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::record::{Candidate, Outcome, Revision};
    use crate::unit::{Content, TargetState};

    fn revision(number: u64) -> Revision {
        Revision {
            number,
            at: 0,
            content: Content::from("[Service]\nExecStart=/x\n"),
            restarts: 0,
        }
    }

    fn record(stable: u64) -> UnitRecord {
        UnitRecord {
            target: TargetState::Launched,
            stable: revision(stable),
            candidate: None,
            last: None,
            owners: BTreeSet::new(),
        }
    }

    fn ended(revision: u64, ended: Ended) -> Outcome {
        Outcome {
            revision,
            ended,
            reason: "it failed on n1: exit-code".into(),
            at: 0,
        }
    }

    fn shown(record: &UnitRecord, verdicts: Vec<(Verdict, usize)>) -> Vec<String> {
        let problems = of_record(record, verdicts).into_iter();
        problems.map(|problem| problem.to_string()).collect()
    }

    fn needs(value: &str, found: Option<&str>) -> Verdict {
        Verdict::Not(Reason::Metadata {
            key: "role".into(),
            accepted: vec![value.into()],
            found: found.map(str::to_owned),
        })
    }

    #[test]
    fn rolled_back_update_is_a_problem_until_the_next_one() {
        let mut unit = record(2);
        unit.last = Some(ended(3, Ended::RolledBack));
        let told = ["revision 3 was rolled back: it failed on n1: exit-code"];
        assert_eq!(shown(&unit, vec![(Verdict::Run, 1)]), told);

        unit.candidate = Some(Candidate {
            revision: revision(4),
            phase: Phase::Rolling,
            reason: String::new(),
            since: 0,
            failed_on: BTreeSet::new(),
        });
        assert!(shown(&unit, vec![(Verdict::Run, 1)]).is_empty());

        unit.candidate = None;
        unit.stable = revision(4);
        assert!(shown(&unit, vec![(Verdict::Run, 1)]).is_empty());
        unit.last = Some(ended(4, Ended::Done));
        assert!(shown(&unit, vec![(Verdict::Run, 1)]).is_empty());
    }

    #[test]
    fn paused_update_is_a_problem_with_its_reason() {
        let mut unit = record(1);
        unit.candidate = Some(Candidate {
            revision: revision(2),
            phase: Phase::Paused,
            reason: "it failed on n1".into(),
            since: 0,
            failed_on: BTreeSet::new(),
        });
        assert_eq!(
            shown(&unit, vec![]),
            ["revision 2 is paused: it failed on n1"]
        );
    }

    #[test]
    fn unit_without_a_machine_names_each_reason() {
        let verdicts = vec![(needs("wbe", Some("web")), 3), (needs("wbe", None), 1)];
        assert_eq!(
            shown(&record(1), verdicts),
            [
                "it runs on no machine: it needs role=wbe, and role is not set here (1 machine); \
              it needs role=wbe, and role=web here (3 machines)"
            ]
        );
    }

    #[test]
    fn inactive_unit_without_a_machine_is_no_problem() {
        for reason in [Reason::Inactive, Reason::Template, Reason::NotGlobal] {
            assert!(shown(&record(1), vec![(Verdict::Not(reason), 3)]).is_empty());
        }
        let partly = vec![(needs("db", Some("web")), 3), (Verdict::Run, 1)];
        assert!(shown(&record(1), partly).is_empty());
        assert!(shown(&record(1), vec![]).is_empty());
    }

    #[test]
    fn failed_unit_has_the_reason_of_its_machine() {
        let shown = |active, result, failed| {
            let problem = of_report(active, result, failed);
            problem.map(|problem| problem.to_string())
        };
        let failed = Some("failed (exit-code)".to_owned());
        assert_eq!(shown("failed", "exit-code", None), failed);
        assert_eq!(shown("failed", "success", None), Some("failed".to_owned()));
        let dependency = shown("inactive", "success", Some("a dependency failed"));
        assert_eq!(dependency, Some("a dependency failed".to_owned()));
        assert_eq!(shown("activating", "", None), None);
        assert_eq!(shown("active", "success", None), None);
    }

    #[test]
    fn kind_of_a_newer_fleetd_reads_as_other() {
        let read = |text: &str| serde_json::from_str::<ProblemKind>(text).expect("a kind");
        assert_eq!(read("\"no-machine\""), ProblemKind::NoMachine);
        assert_eq!(read("\"something-new\""), ProblemKind::Other);
        for kind in [
            ProblemKind::Failed,
            ProblemKind::RolledBack,
            ProblemKind::Paused,
        ] {
            assert_eq!(read(&format!("\"{}\"", kind.as_str())), kind);
        }
    }
}
