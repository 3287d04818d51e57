//! Hosts on which a unit's own conditions keep it from starting.

use anyhow::{Context, Result, ensure};
use lab::Lab;
use serde_json::Value;

use super::{SOON, rollout, settled, submit};
use crate::support::looking::sleeper;

const UNIT: &str = "a.service";

#[test]
fn a_unit_whose_conditions_are_not_met_does_what_its_file_asks() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        lab.wait_until(SOON, "all machines are listed", || {
            let listed = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
            Ok(listed.ok()?.lines().count() == 3)
        })?;
        lab.host(1).write_file("/srv/wanted", "")?;
        submit(lab.host(1), UNIT, &unit(1000))?;
        told(lab, 1).context("at first")?;
        submit(lab.host(1), UNIT, &unit(1001))?;
        told(lab, 2).context("after an update")?;
        // fleetd does not query systemd about units that it has already dropped.
        lab.host(2)
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        lab.wait_until(SOON, "fleetd is back", || told(lab, 2).map(|()| true))?;
        // The condition is now true. The unit may be started by hand, or by the next update.
        lab.host(2).write_file("/srv/wanted", "")?;
        submit(lab.host(1), UNIT, &unit(1002))?;
        lab.wait_until(SOON, "it runs there", || Ok(lab.host(2).is_active(UNIT)))?;
        told(lab, 3).context("where it became true")
    });
}

/// Returns a unit whose budget is one machine. A machine where it cannot start must not use up the
/// budget.
fn unit(number: u32) -> String {
    format!(
        "[Unit]\nConditionPathExists=/srv/wanted\n{}MaxUnavailable=1\n",
        sleeper(number)
    )
}

fn told(lab: &Lab, revision: u64) -> Result<()> {
    ensure!(settled(lab, lab.host(1), UNIT)? == revision);
    let status = rollout(lab.host(1), UNIT)?;
    ensure!(
        status["ready"] == 3 && status["available"] == 3,
        "{status:#}"
    );
    for machine in status["machines"].as_array().into_iter().flatten() {
        ensure!(machine["failed"] == Value::Null, "{machine:#}");
    }
    let runs = lab
        .hosts()
        .iter()
        .filter(|host| host.is_active(UNIT))
        .count();
    let wanted = lab
        .hosts()
        .iter()
        .filter(|host| host.read_file("/srv/wanted").is_ok())
        .count();
    ensure!(
        runs == wanted,
        "it runs on {runs} hosts, wanted on {wanted}"
    );
    Ok(())
}
