//! Faults of hosts, network, registry and fleetd, none of which affects a unit.

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
