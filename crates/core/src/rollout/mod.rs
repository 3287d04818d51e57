//! How an update reaches the machines: which revision a machine runs, and which machine is next.
//!
//! ```text
//!            submit                       every live machine is done
//!   stable ---------> Rolling ------------------------------------------> stable is the candidate
//!                     |  ^ |   failed, or no progress
//!               pause |  | +---------------------> RollingBack ---------> stable stays
//!                     v  | resume                     ^
//!                    Paused --------------------------+ undo
//! ```
//!
//! A machine that has a unit changes to another revision, where that restarts it, only by the
//! leader's [`Grant`]. A machine that does not have it takes the stable revision by itself: what
//! does not run cannot be taken down. So an agent alone never spends the budget: not at a
//! promotion, not at a second update, and not when machines return.
//!
//! [`Grant`]: crate::record::Grant

mod choice;
mod orders;
mod step;
mod supersede;
mod survey;
mod transition;

use serde::{Deserialize, Serialize};

pub use self::choice::{Choice, Present, choose, confirms};
pub use self::orders::{Order, OrderError, follow};
pub use self::step::{GrantTo, OnMachine, Presence, Situation, Step, Unknown, step};
pub use self::supersede::{Succession, succeed, surplus};
pub use self::survey::{Survey, Surveyed};
pub use self::transition::{Changed, Transition};

/// Which way a candidate is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Machines are given it, within the budget.
    Rolling,
    /// Nothing moves until a person resumes it, undoes it, or submits another update.
    Paused,
    /// Machines are given the stable revision again, within the budget.
    RollingBack,
}

impl Phase {
    /// The word that listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Paused => "paused",
            Self::RollingBack => "rolling-back",
        }
    }
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The candidate is stable now.
    Done,
    /// The candidate is gone.
    RolledBack,
}

impl Ended {
    /// The word that listings and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::RolledBack => "rolled-back",
        }
    }
}
