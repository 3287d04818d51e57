//! Shows that a machine whose `desired.json` is damaged during an update restarts nothing because
//! of that.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::Lab;

use super::{TRAIL, install, start};
use crate::support::workload::{SOON, fleet_journal, fleetd, fleetd_again};

/// Longer than an agent needs after its start to follow the registry.
const A_WHILE: Duration = Duration::from_secs(2);

#[test]
fn desired_state_damaged_in_an_update_restarts_nothing() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        install(lab)?;
        let name = "web.service";
        let fleet = "[X-Fleet]\nGlobal=true\nMaxUnavailable=1\n";
        start(lab.host(1), name, &format!("{TRAIL}{fleet}"))?;
        lab.wait_until(SOON, "it runs everywhere", || {
            Ok(lab.hosts().iter().all(|host| host.is_active(name)))
        })?;
        let before: Vec<u32> = pids(lab, name)?;
        // The first machine is never available for long enough, so the second one waits.
        let update = format!("{TRAIL}Environment=version=2\n{fleet}MinReadySec=600\nProgressDeadlineSec=1200\n");
        start(lab.host(1), name, &update)?;
        let mut updated = None;
        lab.wait_until(SOON, "one of them is updated", || {
            let now = pids(lab, name)?;
            updated = (0..now.len()).find(|at| now[*at] != before[*at] && now[*at] != 0);
            Ok(updated.is_some())
        })?;
        let host = &lab.hosts()[updated.unwrap_or_default()];
        let running = host.main_pid(name)?;

        let pid = fleetd(host)?;
        host.sh("systemctl stop fleet.socket fleet.service; truncate -s 20 /var/lib/fleet/desired.json; systemctl start fleet.socket fleet.service")?.ok()?;
        fleetd_again(lab, host, pid)?;
        std::thread::sleep(A_WHILE);
        let journal = fleet_journal(host)?;
        ensure!(journal.contains("desired.json is damaged"), "{journal}");
        ensure!(host.main_pid(name)? == running, "it was restarted:\n{journal}");
        // From here on it follows the registry.
        lab.host(1).fleetctl(&["stop", name])?.ok()?;
        lab.wait_until(SOON, "it is stopped everywhere", || {
            Ok(lab.hosts().iter().all(|host| !host.is_active(name)))
        })
    });
}

fn pids(lab: &Lab, name: &str) -> Result<Vec<u32>> {
    lab.hosts().iter().map(|host| host.main_pid(name)).collect()
}
