//! Units: what they are called, what their files say, and what fleet reads from `[X-Fleet]`.
//!
//! A file is read twice, on purpose. [`UnitFile`]'s assignments are what systemd sees, and every decision is
//! made from them. Its options are what the original fleet's library saw, and serve [`struct@Hash`] and the API
//! only. Neither is ever written back over a file that a person wrote: bytes in, bytes out.

mod content;
mod difference;
mod file;
mod hash;
mod lines;
mod name;
mod options;
mod original;
mod service_type;

pub use content::Content;
pub use difference::{Difference, Effect, difference, process_fingerprint};
pub use file::{Assignment, Note, Severity, UnitFile};
pub use hash::Hash;
pub use name::{NAME_MAX, NameError, UnitKind, UnitName};
pub use options::{FleetOptions, OptionsError};
pub use original::serialize;
pub use service_type::{ServiceType, service_type};
