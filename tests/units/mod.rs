//! A unit that is submitted, or is in a units directory, does on its machines what its file says.

mod bad_units;
mod busy_mount;
mod global;
mod hanging_units;
mod name_clash;
mod packaged_units;
mod real_systemd;
mod reports;
mod standalone;
mod templates;
mod units_directory;
mod units_directory_groups;
mod units_directory_owners;
