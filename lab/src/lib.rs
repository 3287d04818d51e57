//! Real systemd hosts on one machine, for the tests, the demo and the benchmarks.
//!
//! ```text
//!   namespace fleet-<id>-net
//!   +-------------------------- bridge --------------------------+
//!   |          |          |                    |        |        |
//!   host1      host2      host3     ...        etcd1    etcd2    ...
//!   10.99.1.1  10.99.1.2  10.99.1.3            10.99.0.1         each in a namespace of its own
//!   systemd-nspawn, systemd as PID 1,          plain processes
//!   a system bus, an overlay of its own
//! ```
//!
//! A lab is one value. Everything it creates on the machine has its id in the name, so its removal
//! needs no list. [`Lab`]'s drop, the next start after a killed test, and Ctrl-C in the demo all
//! run the same [`cleanup::remove`]. Two labs never see each other, though they use the same
//! addresses.
//!
//! ```no_run
//! # use lab::Lab;
//! # use std::time::Duration;
//! // The body of a test: skipped, with a printed reason, on a machine that cannot hold a lab.
//! Lab::builder().hosts(3).etcd(1).test(|lab| {
//!     lab.install_fleet(|host| lab.fleet_conf().metadata(&format!("host={}", host.name())))?;
//!     lab.host(1).write_file("/root/hello.service", "[Service]\n...")?;
//!     lab.host(1).fleetctl(&["start", "/root/hello.service"])?.ok()?;
//!     lab.wait_until(Duration::from_secs(10), "hello runs everywhere", || {
//!         Ok(lab.hosts().iter().all(|host| host.is_active("hello.service")))
//!     })
//! });
//! ```
//!
//! A host boots in well under a second and takes about 24 MB. Thirty fit easily on a laptop.

mod cgroup;
mod chance;
pub mod cleanup;
mod cluster;
mod etcd;
mod exec;
mod fleet;
mod folders;
mod host;
mod images;
mod network;
mod page;
mod podman;
pub mod requirements;
mod rootfs;
mod ssh;
pub mod trail;
mod wait;

pub use chance::Chance;
pub use cluster::{Builder, Lab};
pub use etcd::{Member, Metrics};
pub use exec::{Output, run};
pub use fleet::{BINARIES, FleetConf, binaries, cargo, repository};
pub use folders::target;
pub use host::Host;
pub use images::Images;
pub use network::Link;
pub use page::write_page;
pub use wait::wait_until;
