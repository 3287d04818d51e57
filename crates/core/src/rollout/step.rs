//! Which machines may change their revision next, and when a rollout ends.

use crate::machine::MachineId;
use crate::record::{Grant, Outcome, Progress, SessionId, UnitRecord, UnitReport};
use crate::unit::Policy;

/// A unit, and how it stands on the live machines.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The unit.
    pub record: &'a UnitRecord,
    /// The store revision that made it.
    pub created: u64,
    /// Of the candidate, or of the stable revision if there is none.
    pub policy: Policy,
    /// How far its rollout had come.
    pub progress: Option<&'a Progress>,
    /// Every live machine where the revision belongs that machines are on the way to.
    pub machines: Vec<OnMachine<'a>>,
    /// The time, in milliseconds since 1970.
    pub now: u64,
}

/// A live machine.
#[derive(Clone, Copy, Debug)]
pub struct OnMachine<'a> {
    /// Its id.
    pub id: &'a MachineId,
    /// Its present session.
    pub session: SessionId,
    /// Whether nothing new or updated may start there.
    pub cordoned: bool,
    /// What it may run of the unit, whatever session or unit that was for.
    pub grant: Option<&'a Grant>,
    /// What it says of the unit; none while it has put no file in place.
    pub report: Option<&'a UnitReport>,
}

/// What may happen next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Machines that may go on now.
    pub grants: Vec<GrantTo>,
    /// What becomes of the rollout. Never together with grants.
    pub change: Option<Change>,
    /// The progress to write down; none leaves it as it is.
    pub progress: Option<Progress>,
    /// What the rollout waits for, for people; none if there is nothing left to do.
    pub waits: Option<String>,
    /// When to look again though nothing happened, in milliseconds since 1970.
    pub wake_at: Option<u64>,
}

/// A grant to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// To that machine.
    pub machine: MachineId,
    /// The grant.
    pub grant: Grant,
}

/// What becomes of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The candidate becomes stable; the stable revision goes into the history.
    Promote(Outcome),
    /// Machines go back to the stable revision from now on, because of this.
    RollBack(String),
    /// Nothing moves any more, because of this; the candidate failed on these machines.
    Pause(String, Vec<MachineId>),
    /// Every machine is back; the candidate goes into the history.
    EndRollback(Outcome),
}

/// Decides the next step of one unit.
pub fn step(situation: &Situation<'_>) -> Step {
    let _ = situation;
    Step::default()
}
