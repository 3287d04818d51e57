//! Hosts, network, registry and fleetd break; the units do not notice.

mod bad_configuration;
mod boot;
mod full_disk;
mod hosts;
mod leadership;
mod reboots;
mod registry;
mod registry_away;
mod registry_replaced;
mod reloads;
mod restarts;
