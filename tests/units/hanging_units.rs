//! Shows that units that hang in their start or stop delay no others.

use lab::Lab;

use crate::support::workload::{self, SOON, works};

#[test]
fn units_that_hang_in_start_or_stop_hold_up_no_others() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        lab.install_fleet(|host| workload::conf(lab, host))?;
        let first = lab.host(1);
        workload::write(
            first,
            "stubborn.service",
            "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nTimeoutStopSec=60\n",
        )?;
        lab.wait_until(SOON, "a unit can be started", || Ok(first.sh("cd /root; fleetctl start stubborn.service")?.code == 0))?;
        workload::active(lab, "stubborn.service", lab.hosts())?;
        first.fleetctl(&["destroy", "stubborn.service"])?.ok()?;
        lab.wait_until(SOON, "it hangs in its stop", || {
            Ok(lab.hosts().iter().all(|host| {
                host.systemctl_show("stubborn.service", "ActiveState").is_ok_and(|state| state == "deactivating")
            }))
        })?;
        works(lab, "beside-a-hanging-stop.service")?;

        for number in 0..20 {
            workload::write(first, &format!("hangs{number}.service"), "[Service]\nType=notify\nExecStart=/bin/sleep infinity\nTimeoutStartSec=600\n")?;
        }
        first.sh("cd /root; fleetctl start hangs*.service")?.ok()?;
        works(lab, "beside-hanging-starts.service")?;
        first.sh("fleetctl destroy hangs*.service")?.ok()?;
        lab.wait_until(SOON, "they are gone", || {
            Ok(lab.hosts().iter().all(|host| host.sh("systemctl list-units --no-legend 'hangs*'").is_ok_and(|said| said.stdout.is_empty())))
        })
    });
}
