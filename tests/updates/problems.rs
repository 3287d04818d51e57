//! Shows that `fleetctl status` lists the problems with units, and that its exit code reports them.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{SOON, runs_everywhere, sleeper};

const UNIT: &str = "web.service";
const FILE: &str = "/root/web.service";

/// Waits until the cluster's status has that exit code, and contains that text.
fn status(lab: &Lab, host: &Host, code: i32, text: &str) -> Result<()> {
    lab.wait_until(SOON, &format!("exit {code} with `{text}`"), || {
        let status = host.fleetctl(&["status"])?;
        ensure!(
            status.code == code && status.stdout.contains(text),
            "{status:?}"
        );
        Ok(true)
    })
}

#[test]
fn cluster_status_lists_failed_rolled_back_and_unplaced_units() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf().metadata("role=web"))?;
        let host = lab.host(1);
        host.write_file(FILE, sleeper(1000))?;
        host.fleetctl(&["start", "--wait", FILE])?.ok()?;
        runs_everywhere(lab, UNIT, 1000)?;
        status(lab, host, 0, "Problems: none")?;

        host.write_file(
            FILE,
            sleeper(1001).replace("[Service]\n", "[Service]\nExecStartPre=/bin/false\n"),
        )?;
        host.fleetctl(&["start", "--replace", FILE])?.ok()?;
        status(lab, host, 3, "  web.service: revision 2 was rolled back: it failed on ")?;

        host.write_file(FILE, sleeper(1002))?;
        host.fleetctl(&["start", "--replace", "--wait", FILE])?
            .ok()?;
        status(lab, host, 0, "Problems: none")?;

        host.exec(&["systemctl", "kill", "-s", "SEGV", UNIT])?
            .ok()?;
        status(lab, host, 3, " web.service: failed (")?;
        host.fleetctl(&["restart", "--wait", UNIT])?.ok()?;
        status(lab, host, 0, "Problems: none")?;

        let nowhere = sleeper(1) + "MachineMetadata=role=wbe\n";
        host.write_file("/root/typo.service", nowhere)?;
        host.fleetctl(&["start", "/root/typo.service"])?.ok()?;
        let text = "  typo.service: it runs on no machine: it needs role=wbe, and role=web here (2 machines)";
        status(lab, host, 3, text)
    });
}
