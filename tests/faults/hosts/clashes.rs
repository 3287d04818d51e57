//! Shows that foreign units, transient or from a package, made before or after fleet's own, are
//! neither stopped nor overwritten.

use anyhow::ensure;
use lab::Lab;

use super::{TRAIL, clean, install, start, told};
use crate::support::workload::{SOON, active, works};

const PACKAGED: &str = "/usr/lib/systemd/system/late.service";
const THEIRS: &str = "[Service]\nExecStart=/bin/sleep 4711\n";

#[test]
fn a_transient_unit_and_one_of_a_package_keep_their_names() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        install(lab)?;
        let host = lab.host(1);
        host.sh("systemd-run --quiet --unit=early.service sleep 4711")?
            .ok()?;
        let theirs = host.main_pid("early.service")?;
        start(host, "early.service", TRAIL)?;
        told(lab, host, "/run/systemd/transient/early.service")?;
        start(host, "late.service", TRAIL)?;
        active(lab, "late.service", [host])?;
        let ours = host.main_pid("late.service")?;
        host.write_file(PACKAGED, THEIRS)?;
        host.sh("systemctl daemon-reload")?.ok()?;
        told_of(lab, "lib/systemd/system/late.service")?;
        works(lab, "beside-clashes.service")?;
        ensure!(
            host.main_pid("early.service")? == theirs,
            "their process was touched"
        );
        ensure!(
            host.main_pid("late.service")? == ours,
            "fleet's process was touched"
        );

        host.sh("fleetctl destroy late.service")?.ok()?;
        lab.wait_until(SOON, "fleet's file is gone", || {
            Ok(!host.path("/run/fleet/units/late.service").exists())
        })?;
        ensure!(
            host.read_file(PACKAGED)? == THEIRS,
            "their file was changed"
        );
        // Now the owner of the process is unknown.
        ensure!(
            host.main_pid("late.service")? == ours,
            "a process under their name was stopped"
        );
        host.sh("systemctl stop early.service")?.ok()?;
        active(lab, "early.service", [host])?;
        ensure!(host.read_file("/srv/early.service")? == "ran\n");
        clean(lab, host)
    });
}

fn told_of(lab: &Lab, text: &str) -> anyhow::Result<()> {
    lab.wait_until(SOON, &format!("{text} is told"), || {
        Ok(lab
            .host(1)
            .fleetctl(&["status", "late.service"])?
            .stdout
            .contains(text))
    })
}
