//! The decisions of fleet, as pure functions of values: no I/O, no clock, no randomness.
//!
//! A **unit** is a systemd unit that fleet keeps on machines. Its record ([`record::UnitRecord`])
//! holds the *target state* (`inactive`, `loaded`, `launched`) and one or two *revisions*. The
//! *stable* revision is the one that every machine runs. The *candidate*, if there is one, is being
//! rolled out.
//!
//! A **machine** ([`machine::MachineId`]) has metadata. [`place`] compares it with the unit's
//! `[X-Fleet]` options and decides whether the unit belongs there. The machine writes a **report**
//! ([`record::UnitReport`]) of its systemd's state.
//!
//! The **leader** calls [`rollout::step`] for each unit, with the record and all reports. It
//! returns **grants** ([`record::Grant`]), or the [`rollout::Transition`] that ends the rollout. A
//! grant permits one machine to run one revision. The **agent** on each machine calls
//! [`rollout::choose`] for the revision it should have. [`plan`] returns the tasks that make
//! systemd agree. [`trust`] comes first: it decides whether to obey this registry at all.
//!
//! ```text
//!   fleetctl, units directory                       every machine
//!        | submission, directory                        |
//!        v                                              v
//!   +---------- UnitRecord ----------+  place   +---- machine ----+
//!   | target   stable   candidate    |--------->| metadata        |
//!   +--------------------------------+          | scheduling      |
//!        ^ Transition     | step                 +-----------------+
//!        |                v                         |        ^
//!      leader ---------> Grant ----- choose, plan --+        |
//!        ^                             (trust first)      systemd
//!        +----------------- UnitReport ----------------------+
//! ```
//!
//! The same values feed [`explain`], [`preview`], [`problem`] and [`rollout::Survey`], which are
//! for people. [`api`] holds their wire shapes.

pub mod access;
pub mod api;
pub mod daemonset;
pub mod directory;
pub mod explain;
pub mod keys;
pub mod machine;
pub mod place;
pub mod plan;
pub mod preview;
pub mod problem;
pub mod record;
pub mod rollout;
pub mod submission;
pub mod systemd;
pub mod timestamp;
pub mod trigger;
pub mod trust;
pub mod unit;
