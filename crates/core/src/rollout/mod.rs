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
//! A machine that has a unit changes to another revision, where that restarts it, only by the leader's [`Grant`].
//! A machine that does not have it takes the stable revision by itself: what does not run cannot be taken down.
//! So nothing that an agent does alone costs any of the budget: not a promotion, not an update submitted on top of
//! another, not the return of machines that missed one.
//!
//! [`Grant`]: crate::record::Grant

mod change;
mod choice;
mod orders;
mod step;
mod succession;
mod survey;

pub use self::change::Changed;
pub use self::choice::{Choice, Present, choose, confirms};
pub use self::orders::{Order, OrderError, follow};
pub use self::step::{Change, GrantTo, OnMachine, Situation, Step, Unknown, step};
pub use self::succession::{Succession, succeed, surplus};
pub use self::survey::{Presence, Survey, Surveyed};
