//! Behaviours of fleet on real systemd hosts, one module each.

mod full_disk;
mod hanging_units;
mod lab_itself;
mod leadership;
mod name_clash;
mod packaged_units;
mod reboots;
mod registry_away;
mod registry_replaced;
mod restarts;
mod workload;
