//! Orders about a rollout: pause, resume, undo, restart.
//!
//! An order changes the unit's record, or is refused with the present state and the next step.
//! Nothing here moves a machine: that is for the leader, which reads the record.

use std::collections::BTreeMap;

use super::supersede::{Succession, succeed};
use crate::record::{Candidate, Past, Revision, UnitRecord};
use crate::rollout::{Ended, Phase};
use crate::timestamp::timestamp;
use crate::unit::{TargetState, UnitName};

/// The order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing moves any more.
    Pause,
    /// It moves again, also where machines failed.
    Resume,
    /// Back to what was before, or to that revision.
    Undo(Option<u64>),
    /// Every machine restarts the unit, within the budget.
    Restart,
}

/// An order that cannot be followed: the present state, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is nothing to pause or resume.
    #[error(
        "unit {unit} has no rollout in progress; its revision {stable} is stable since {since}"
    )]
    NoRollout {
        /// The unit.
        unit: UnitName,
        /// The stable revision.
        stable: u64,
        /// Since when, as text.
        since: String,
    },
    /// The rollout is in that phase already, or its phase does not allow the order.
    #[error("the rollout of unit {unit} to revision {candidate} {standing}")]
    Phase {
        /// The unit.
        unit: UnitName,
        /// The candidate.
        candidate: u64,
        /// The present state, and what to do.
        standing: String,
    },
    /// Nothing runs that could be restarted.
    #[error(
        "unit {unit} is {target}, so there is nothing to restart; to launch it: fleetctl start {unit}"
    )]
    NotLaunched {
        /// The unit.
        unit: UnitName,
        /// Its target state.
        target: TargetState,
    },
    /// The history begins later.
    #[error("unit {unit} has no revision before {stable} to go back to{known}")]
    NothingBefore {
        /// The unit.
        unit: UnitName,
        /// The stable revision.
        stable: u64,
        /// The revisions that exist, as text.
        known: String,
    },
    /// That one is not known any more, or never was.
    #[error("unit {unit} has no revision {number} to go back to{known}")]
    Unknown {
        /// The unit.
        unit: UnitName,
        /// The number that was asked for.
        number: u64,
        /// The revisions that exist, as text.
        known: String,
    },
    /// It is what is wanted already.
    #[error("unit {unit}: revision {number} {standing}")]
    Already {
        /// The unit.
        unit: UnitName,
        /// The number that was asked for.
        number: u64,
        /// The present state.
        standing: String,
    },
}

/// Follows an order. `history`: the unit's older revisions by number. `by`: who orders it, as in
/// `paused by fleetctl`. `now`: in milliseconds since 1970.
pub fn follow(
    order: Order,
    unit: &UnitName,
    record: &UnitRecord,
    history: &BTreeMap<u64, Past>,
    by: &str,
    now: u64,
) -> Result<Succession, OrderError> {
    let asked = Asked {
        unit,
        record,
        history,
        by,
        now,
    };
    match order {
        Order::Pause => asked.pause(),
        Order::Resume => asked.resume(),
        Order::Undo(None) => asked.undo(),
        Order::Undo(Some(number)) => asked.undo_to(number),
        Order::Restart => asked.restart(),
    }
}

struct Asked<'a> {
    unit: &'a UnitName,
    record: &'a UnitRecord,
    history: &'a BTreeMap<u64, Past>,
    by: &'a str,
    now: u64,
}

type Result<T, E = OrderError> = std::result::Result<T, E>;

impl Asked<'_> {
    fn pause(&self) -> Result<Succession> {
        let candidate = self.candidate()?;
        match candidate.phase {
            Phase::Rolling => {
                Ok(self.turned(candidate, Phase::Paused, format!("paused by {}", self.by)))
            }
            Phase::Paused => Err(self.standing(
                candidate,
                format!(
                    "is paused already ({}); to go on: fleetctl rollout resume {}",
                    candidate.reason, self.unit
                ),
            )),
            Phase::RollingBack => Err(self.going_back(candidate)),
        }
    }

    fn resume(&self) -> Result<Succession> {
        let candidate = self.candidate()?;
        match candidate.phase {
            Phase::Paused => {
                Ok(self.turned(candidate, Phase::Rolling, format!("resumed by {}", self.by)))
            }
            Phase::Rolling => {
                Err(self.standing(candidate, "is not paused: it goes on by itself".to_owned()))
            }
            Phase::RollingBack => Err(self.going_back(candidate)),
        }
    }

    fn undo(&self) -> Result<Succession> {
        let stable = &self.record.stable;
        match &self.record.candidate {
            Some(candidate) if candidate.phase == Phase::RollingBack => {
                Err(self.going_back(candidate))
            }
            Some(candidate) => Ok(self.turned(
                candidate,
                Phase::RollingBack,
                format!("undone by {}", self.by),
            )),
            None => {
                // A restart made a revision of the same content: going back there would change
                // nothing.
                let differs = |past: &&Past| {
                    past.dropped.is_none() && past.revision.content != stable.content
                };
                let before = self.history.range(..stable.number).map(|(_, past)| past);
                let back = before.rev().find(differs);
                let back = back.ok_or_else(|| OrderError::NothingBefore {
                    unit: self.unit.clone(),
                    stable: stable.number,
                    known: self.known(),
                })?;
                Ok(self.again(&back.revision, false))
            }
        }
    }

    fn undo_to(&self, number: u64) -> Result<Succession> {
        let already = |standing: &str| {
            Err(OrderError::Already {
                unit: self.unit.clone(),
                number,
                standing: standing.to_owned(),
            })
        };
        let stable = &self.record.stable;
        match &self.record.candidate {
            Some(candidate) if number == stable.number => match candidate.phase {
                Phase::RollingBack => already("is where its machines are going back to already"),
                Phase::Rolling | Phase::Paused => self.undo(),
            },
            Some(candidate)
                if number == candidate.revision.number && candidate.phase != Phase::RollingBack =>
            {
                already("is being rolled out already")
            }
            // Whoever wants it in spite of its being undone wants it as a revision of its own.
            Some(candidate) if number == candidate.revision.number => {
                Ok(self.again(&candidate.revision, false))
            }
            None if number == stable.number => already("is stable already"),
            candidate => match self.history.get(&number) {
                Some(past) if candidate.is_none() && past.revision.content == stable.content => {
                    let standing =
                        format!("is what revision {} has, which is stable", stable.number);
                    already(&standing)
                }
                Some(past) => Ok(self.again(&past.revision, false)),
                None => Err(OrderError::Unknown {
                    unit: self.unit.clone(),
                    number,
                    known: self.known(),
                }),
            },
        }
    }

    fn restart(&self) -> Result<Succession> {
        if self.record.target != TargetState::Launched {
            return Err(OrderError::NotLaunched {
                unit: self.unit.clone(),
                target: self.record.target,
            });
        }
        match &self.record.candidate {
            Some(candidate) if candidate.phase == Phase::RollingBack => {
                Err(self.going_back(candidate))
            }
            Some(candidate) if candidate.phase == Phase::Paused => Err(self.standing(
                candidate,
                format!(
                    "is paused ({}); first: fleetctl rollout resume {unit}, or fleetctl rollout undo {unit}",
                    candidate.reason,
                    unit = self.unit
                ),
            )),
            _ => Ok(self.again(self.record.newest(), true)),
        }
    }

    fn candidate(&self) -> Result<&Candidate> {
        let stable = &self.record.stable;
        let promoted = self
            .record
            .last
            .as_ref()
            .filter(|last| last.ended == Ended::Done && last.revision == stable.number);
        self.record
            .candidate
            .as_ref()
            .ok_or_else(|| OrderError::NoRollout {
                unit: self.unit.clone(),
                stable: stable.number,
                since: timestamp(promoted.map_or(stable.at, |last| last.at)),
            })
    }

    fn turned(&self, candidate: &Candidate, phase: Phase, reason: String) -> Succession {
        let turned = Candidate {
            phase,
            reason,
            since: self.now,
            ..candidate.clone()
        };
        Succession {
            record: UnitRecord {
                candidate: Some(turned),
                ..self.record.clone()
            },
            retired: Vec::new(),
        }
    }

    /// A content that there was before, as a new revision. A person asked for it, so it is not held
    /// for one.
    fn again(&self, revision: &Revision, restarts: bool) -> Succession {
        let number = self.record.next_number();
        let next = Revision {
            number,
            at: self.now,
            content: revision.content.clone(),
            // Above that of every revision before, also of one that was rolled back.
            restarts: match restarts {
                true => number,
                false => self.record.newest().restarts,
            },
        };
        succeed(
            self.record.clone(),
            self.record.target,
            next,
            None,
            self.now,
        )
    }

    fn standing(&self, candidate: &Candidate, standing: String) -> OrderError {
        OrderError::Phase {
            unit: self.unit.clone(),
            candidate: candidate.revision.number,
            standing,
        }
    }

    fn going_back(&self, candidate: &Candidate) -> OrderError {
        let standing = format!(
            "goes back to revision {} ({}); once it is back, submit the unit again",
            self.record.stable.number, candidate.reason
        );
        self.standing(candidate, standing)
    }

    /// Returns the revisions to go back to: `; its history has 3, 4, 7 (rolled back)`.
    fn known(&self) -> String {
        if self.history.is_empty() {
            return "; its history is empty".to_owned();
        }
        let past = self.history.iter().map(|(number, past)| {
            if past.was_rolled_back() {
                format!("{number} (rolled back)")
            } else {
                number.to_string()
            }
        });
        format!("; its history has {}", past.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests;
