//! Units: what they are called, what their files say, and what fleet reads from `[X-Fleet]`.

mod content;
mod name;

pub use content::Content;
pub use name::{NAME_MAX, NameError, UnitKind, UnitName};
