//! Shows that sessions recorded on three hosts of fleet 1.0 give the same results on three hosts:
//! the command line and the API.

mod api;
mod sessions;
#[path = "../../../crates/fleetd/tests/it/api/transcript.rs"]
mod transcript;

use std::time::Duration;

use anyhow::Result;
use lab::Lab;

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The recorded ids of n1, n2 and n3. Listings are sorted by them.
const MACHINE_IDS: [&str; 3] = [
    "631e82f9bbd25efb88aad49e6c499b79",
    "6650bd8acb14499365bce5a3533bd6c5",
    "3f3fab35461707ed4699d4df0c87385e",
];

/// Runs `body` on three hosts with the recorded ids, metadata and TCP socket.
fn on_recorded_hosts(body: impl FnOnce(&Lab) -> Result<()>) {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        for (host, id) in lab.hosts().iter().zip(MACHINE_IDS) {
            // systemd has read its id at boot. After that, only fleetd reads this file.
            host.write_file("/etc/machine-id", format!("{id}\n"))?;
            let socket = "/etc/systemd/system/fleet.socket.d/tcp.conf";
            host.write_file(socket, "[Socket]\nListenStream=49153\n")?;
        }
        lab.install_fleet(|host| {
            let conf = lab.fleet_conf().line("insecure_tcp=true");
            conf.metadata(&format!("host={}", host.name()))
        })?;
        lab.wait_until(SOON, "all machines are listed", || {
            let listed = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
            Ok(listed.ok()?.lines().count() == 3)
        })?;
        body(lab)
    });
}
