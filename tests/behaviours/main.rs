//! Behaviours of fleet on real systemd hosts, one module each.

mod bad_configuration;
mod bad_requests;
mod bad_units;
mod etcd_access;
mod global_units;
mod lab_itself;
mod looking;
mod packaged_units;
mod real_systemd;
mod root_only;
mod standalone;
mod units_directory;
mod units_directory_owners;
