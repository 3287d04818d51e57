//! Shows that only root on a host can reach fleetd and its files, and that its service is
//! sandboxed.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{refused, runs_everywhere, sleeper};

#[test]
fn only_root_reaches_fleetd_and_its_files() {
    Lab::builder().etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let host = lab.host(1);
        host.write_file("/etc/fleet/units/a.service", sleeper(1000))?;
        runs_everywhere(lab, "a.service", 1000)?;
        socket(host).context("the socket")?;
        files(host).context("files")?;
        // In tenths. Most of the 2.3 is for running as root with the network, which the job needs.
        host.sh("systemd-analyze security --no-pager --threshold=23 fleet.service")?
            .ok()?;
        Ok(())
    });
}

fn socket(host: &Host) -> Result<()> {
    for path in ["/run/fleet.sock", "/var/run/fleet.sock"] {
        let stat = host.exec(&["stat", "--format=%F %a %U:%G", path])?.ok()?;
        ensure!(stat == "socket 660 root:root\n", "{path}: {stat}");
    }
    let nobody = [
        "setpriv",
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "fleetctl",
    ];
    for arguments in [
        &["list-units"][..],
        &["cat", "a.service"],
        &["destroy", "a.service"],
    ] {
        let asked = host.exec(&[&nobody, arguments].concat())?;
        refused(
            &asked,
            1,
            "cannot reach fleetd at unix:///var/run/fleet.sock: Permission denied",
        )?;
    }
    ensure!(
        host.is_active("a.service"),
        "a user other than root destroyed a unit"
    );
    Ok(())
}

fn files(host: &Host) -> Result<()> {
    let kept = host
        .sh("find /var/lib/fleet -printf '%y %m %U %f\\n' | sort")?
        .ok()?;
    let expected = [
        "d 700 0 fleet",
        "f 600 0 desired.json",
        "f 600 0 directory.json",
        "f 600 0 lock",
        "f 600 0 seen.json",
    ];
    ensure!(kept.lines().eq(expected), "{kept}");
    // systemd reads unit files as root. Their author decides what other users may read. Other users
    // may write nothing.
    let others = host
        .sh("find /run/fleet /etc/fleet -perm /022 ! -type l")?
        .ok()?;
    ensure!(others.is_empty(), "others may write to: {others}");
    Ok(())
}
