//! Behaviours of fleet on real systemd hosts, one module each.

mod api_client;
mod api_sockets;
mod bad_configuration;
mod bad_requests;
mod bad_units;
mod etcd_access;
mod full_disk;
mod global_units;
mod hanging_units;
mod lab_itself;
mod leadership;
mod looking;
mod name_clash;
mod orders;
mod packaged_units;
mod real_systemd;
mod reboots;
mod recorded;
mod registry_away;
mod registry_replaced;
mod restarts;
mod root_only;
mod standalone;
mod units_directory;
mod units_directory_owners;
mod workload;
