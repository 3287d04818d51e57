//! The rows of listings and documents: the fields of an object and their names.

mod condition;
mod details;
mod global;
mod last;
mod machine;
mod unit;
mod unit_file;

pub(super) use details::Details;
pub(crate) use global::GlobalRow;
pub(super) use last::LastRow;
pub(crate) use machine::MachineRow;
pub(crate) use unit::UnitRow;
pub(super) use unit::{UnitRows, by_unit};
pub(crate) use unit_file::UnitFileRow;
