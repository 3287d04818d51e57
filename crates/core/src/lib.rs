//! The decisions of fleet, as pure functions of values: no I/O, no clock, no randomness.
//!
//! A **unit** is a systemd unit that fleet keeps on machines. Its record ([`record::UnitRecord`]) holds the *target state*
//! (`inactive`, `loaded`, `launched`) and one or two *revisions*. The *stable* revision is the one that every machine
//! runs. The *candidate*, if there is one, is on its way to the machines.
//!
//! A **machine** ([`machine::MachineId`]) has metadata. [`place`] compares it with the unit's `[X-Fleet]` options and
//! says whether the unit belongs there. The machine sends a **report** ([`record::UnitReport`]) of what its systemd says.
//!
//! The **leader** calls [`rollout::step`] for each unit, with the record and all reports. It
//! returns **grants** ([`record::Grant`]), each the permission for one machine to run one revision,
//! or the [`rollout::Transition`] that ends the rollout. The **agent** on each machine takes
//! [`rollout::choose`] for the revision it should have, and [`plan`] for the tasks that make
//! systemd agree. [`trust`] comes before both: may this registry be obeyed at all?
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
//! For people, the same values become [`explain`], [`preview`], [`problem`] and [`rollout::Survey`]; [`api`] holds their wire shapes.

pub mod access;
pub mod api;
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
