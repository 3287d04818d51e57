//! Shows that fleetd, as root, writes through no planted link, and waits for no file that is not a
//! plain one.

use anyhow::ensure;
use lab::Lab;

use crate::support::looking::{SOON, listed, runs_everywhere, sleeper, told};

/// Links to a foreign file that fleetd's sandbox lets it write, in every place where fleetd writes.
const PLANTED: [&str; 6] = [
    "/run/fleet/units/a.service",
    "/run/fleet/units/.incoming",
    "/run/fleet/marks.new",
    "/run/fleet/marks.json",
    "/var/lib/fleet/desired.new",
    "/var/lib/fleet/directory.new",
];

#[test]
fn planted_links_are_replaced_and_never_written_through() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        listed(lab)?;
        host.exec(&["systemctl", "stop", "fleet.service"])?.ok()?;
        host.write_file("/run/fleet/precious", "precious")?;
        for link in PLANTED {
            host.sh(&format!(
                "mkdir -p $(dirname {link}); ln -sfn /run/fleet/precious {link}"
            ))?
            .ok()?;
        }
        host.exec(&["systemctl", "start", "fleet.service"])?.ok()?;
        host.write_file("/etc/fleet/units/a.service", sleeper(1000))?;
        runs_everywhere(lab, "a.service", 1000)?;
        ensure!(host.read_file("/run/fleet/precious")? == "precious");
        let others = host
            .sh("find /run/fleet /var/lib/fleet \\( -type l -o -perm /022 \\) -printf '%p\\n'")?
            .ok()?;
        ensure!(others.is_empty(), "{others}");
        Ok(())
    });
}

#[test]
fn a_lock_that_is_a_link_or_a_pipe_is_not_followed() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        listed(lab)?;
        host.write_file("/run/fleet/precious", "precious")?;
        let locks = ["/run/fleet/fleetd.lock", "/var/lib/fleet/lock"];
        for plant in ["ln -s /run/fleet/precious", "mkfifo"] {
            host.exec(&["systemctl", "stop", "fleet.service"])?.ok()?;
            for lock in locks {
                host.sh(&format!("rm {lock}; {plant} {lock}"))?.ok()?;
            }
            // A lock stops no unit. It is reported, and fleetd does not wait for a pipe.
            host.sh("timeout 20 systemctl start fleet.service")?.ok()?;
            for lock in locks {
                told(
                    lab,
                    &format!("{lock}: it is not a plain file: remove it"),
                    true,
                )?;
            }
            ensure!(host.read_file("/run/fleet/precious")? == "precious");
            for lock in locks {
                host.sh(&format!("rm {lock}"))?.ok()?;
            }
            host.sh("systemctl restart fleet.service")?.ok()?;
            told(lab, "not a plain file", false)?;
        }
        Ok(())
    });
}

#[test]
fn non_files_in_the_units_directory_block_nothing() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        listed(lab)?;
        let units = "/etc/fleet/units";
        host.sh(&format!(
            "mkfifo {units}/pipe.service; ln -s /dev/zero {units}/zero.service; ln -s loop.service {units}/loop.service; \
             mkfifo /root/pipe; ln -s /root/pipe {units}/far.service"
        ))?
        .ok()?;
        host.write_file("/root/linked", sleeper(2000))?;
        host.sh(&format!("ln -s /root/linked {units}/linked.service"))?.ok()?;
        host.write_file("/etc/fleet/units/a.service", sleeper(1000))?;
        runs_everywhere(lab, "a.service", 1000)?;
        // A user who may write there may name any file. So the link is followed, as systemd does in
        // /etc/systemd/system.
        runs_everywhere(lab, "linked.service", 2000)?;
        for name in ["pipe", "zero", "far"] {
            told(lab, &format!("{name}.service"), true)?;
        }
        lab.wait_until(SOON, "the directory tells of the pipe", || {
            Ok(host.fleetctl(&["status"])?.stdout.contains("not a regular file"))
        })
    });
}
