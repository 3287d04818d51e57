//! Names of etcd members that no name server resolves at boot.

use anyhow::ensure;
use lab::Lab;

use super::{comes_back, listed_address, prepare};
use crate::support::looking::SOON;

/// A rule that drops every query of the resolver.
const SWALLOWS: [(&str, &str); 2] = [
    (
        "/etc/systemd/system/swallow.socket",
        "[Socket]\nListenDatagram=127.0.0.53:53\n[Install]\nWantedBy=sockets.target\n",
    ),
    (
        "/etc/systemd/system/swallow.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    ),
];

#[test]
fn dead_name_servers_delay_no_unit_and_no_stop() {
    Lab::builder().etcd(1).test(|lab| {
        let host = prepare(lab)?;
        let named = ["a", "b", "c"].map(|name| format!("http://{name}.example:2379"));
        host.write_file(
            "/etc/fleet/fleet.conf",
            lab::FleetConf::new(&named).to_string(),
        )?;
        for (path, content) in SWALLOWS {
            host.write_file(path, content)?;
        }
        host.write_file("/etc/resolv.conf", "nameserver 127.0.0.53\n")?;
        host.sh("systemctl enable --quiet swallow.socket")?.ok()?;
        comes_back(lab, host)?;
        // An unanswered query of the resolver does not delay the stop.
        let pid = host.main_pid("x.service")?;
        host.sh("systemctl restart fleet.service")?.ok()?;
        ensure!(
            host.systemctl_show("fleet.service", "Result")? == "success",
            "fleetd had to be killed"
        );
        ensure!(host.main_pid("x.service")? == pid, "x.service was touched");
        host.write_file("/etc/hosts", "10.99.0.1 a.example b.example c.example\n")?;
        host.sh("systemctl stop swallow.socket swallow.service")?
            .ok()?;
        lab.wait_until(SOON * 2, "the machine is listed with its address", || {
            Ok(listed_address(host)? == host.address())
        })
    });
}
