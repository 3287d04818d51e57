//! Addresses of fleet.socket that are missing or taken at boot.

use anyhow::ensure;
use lab::Lab;

use super::{comes_back, prepare, status_line};
use crate::support::looking::{SOON, told};

const DROP_IN: &str = "/etc/systemd/system/fleet.socket.d/more.conf";

#[test]
fn an_absent_api_address_is_opened_later() {
    Lab::builder().etcd(1).test(|lab| {
        let host = prepare(lab)?;
        host.write_file(DROP_IN, "[Socket]\nListenStream=10.97.7.7:49153\n")?;
        comes_back(lab, host)?;
        host.fleetctl(&["list-units"])?.ok()?;
        status_line(lab, host, "10.97.7.7:49153", true)?;
        told(lab, "10.97.7.7:49153", true)?;
        ensure!(
            host.sh("stat -Lc '%F %a %U:%G' /run/fleet.sock")?.ok()? == "socket 660 root:root\n"
        );
        host.sh("ip address add 10.97.7.7/32 dev lo")?.ok()?;
        status_line(lab, host, "10.97.7.7:49153", false)?;
        told(lab, "10.97.7.7:49153", false)?;
        // It is plain TCP, so the answer is the reason why it is not served.
        let asked = host.fleetctl(&["--endpoint=http://10.97.7.7:49153", "list-units"])?;
        ensure!(asked.stderr.contains("insecure_tcp"), "{asked:?}");
        // This is how systemd opens it, once the socket can be opened.
        host.sh("systemctl restart fleet.socket")?.ok()?;
        lab.wait_until(SOON, "fleetd serves again", || {
            Ok(host.is_active("fleet.socket") && host.fleetctl(&["list-units"])?.code == 0)
        })
    });
}

#[test]
fn a_taken_api_address_is_opened_once_it_is_free() {
    Lab::builder().etcd(1).test(|lab| {
        let host = prepare(lab)?;
        host.write_file(DROP_IN, "[Socket]\nListenStream=127.0.0.1:49153\n")?;
        host.write_file(
            "/etc/systemd/system/taker.socket",
            "[Unit]\nBefore=fleet.socket\n[Socket]\nListenStream=127.0.0.1:49153\n[Install]\nWantedBy=sockets.target\n",
        )?;
        host.write_file(
            "/etc/systemd/system/taker.service",
            "[Service]\nExecStart=/bin/sleep infinity\n",
        )?;
        host.sh("systemctl enable --quiet taker.socket")?.ok()?;
        comes_back(lab, host)?;
        host.fleetctl(&["list-units"])?.ok()?;
        status_line(lab, host, "127.0.0.1:49153", true)?;
        told(lab, "127.0.0.1:49153", true)?;
        host.sh("systemctl stop taker.socket taker.service")?.ok()?;
        status_line(lab, host, "127.0.0.1:49153", false)?;
        told(lab, "127.0.0.1:49153", false)
    });
}

#[test]
fn a_fleetd_without_its_socket_serves_the_usual_path() {
    Lab::builder().etcd(1).test(|lab| {
        let host = prepare(lab)?;
        // A file that is no socket is in the way, and systemd may not remove it.
        host.sh("systemctl disable --quiet fleet.socket; systemctl mask --quiet fleet.socket")?
            .ok()?;
        host.write_file(
            "/etc/tmpfiles.d/way.conf",
            "d /run/fleet.sock 0755 root root -\n",
        )?;
        comes_back(lab, host)?;
        status_line(lab, host, "/run/fleet.sock", true)?;
        host.sh("rmdir /run/fleet.sock")?.ok()?;
        status_line(lab, host, "/run/fleet.sock", false)?;
        host.fleetctl(&["list-units"])?.ok().map(drop)
    });
}
