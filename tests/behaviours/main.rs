//! Behaviours of fleet on real systemd hosts, one module each.

mod lab_itself;
mod packaged_units;
