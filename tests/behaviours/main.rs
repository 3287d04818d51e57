//! Behaviours of fleet on real systemd hosts, one module each.

mod global_units;
mod lab_itself;
mod packaged_units;
