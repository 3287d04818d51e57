//! Shows that an order which was acknowledged happens, whatever becomes of fleetd just then.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::{TRAIL, install, start};
use crate::support::workload::{SOON, active, fleetd, fleetd_again, write};

/// The time between the acknowledgement and the fault, in steps of 30 ms.
const STEPS: u64 = 10;

#[test]
fn acknowledged_orders_happen_whatever_becomes_of_fleetd() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        for host in lab.hosts() {
            // The usual two seconds until the next start would take long.
            host.write_file(
                "/etc/systemd/system/fleet.service.d/test.conf",
                "[Service]\nRestartSec=100ms\n",
            )?;
        }
        install(lab)?;
        for step in 0..=STEPS {
            let delay = Duration::from_millis(30 * step);
            starts(lab, step, delay).with_context(|| format!("{delay:?} later"))?;
        }
        made_again(lab).context("made again while fleetd stands still")
    });
}

/// Starts a unit that the host does not have, and one that it had, each followed by a fault.
fn starts(lab: &Lab, step: u64, delay: Duration) -> Result<()> {
    let host = lab.host(1);
    let name = format!("u{step}.service");
    write(host, &name, TRAIL)?;
    let faults = ["kill -KILL $pid", "systemctl restart fleet.service"];
    // Each fault meets both, in turn.
    let faults = [
        faults[(step % 2) as usize],
        faults[((step + 1) % 2) as usize],
    ];
    for (runs, fault) in [(1, faults[0]), (2, faults[1])] {
        let pid = fleetd(host)?;
        let seconds = delay.as_secs_f64();
        host.sh(&format!(
            "cd /root; pid={pid}; fleetctl start --no-block {name} && sleep {seconds} && {fault}"
        ))?
        .ok()?;
        active(lab, &name, lab.hosts()).with_context(|| fault.to_owned())?;
        fleetd_again(lab, host, pid)?;
        lab.wait_until(SOON, "fleet answers", || {
            Ok(host.fleetctl(&["list-units"])?.code == 0)
        })?;
        ensure!(
            ran(host, &name)? == runs,
            "it ran {} times",
            ran(host, &name)?
        );
        host.fleetctl(&["stop", &name])?.ok()?;
        lab.wait_until(SOON, &format!("{name} is stopped"), || {
            Ok(!lab.hosts().iter().any(|host| host.is_active(&name)))
        })?;
    }
    Ok(())
}

fn ran(host: &Host, name: &str) -> Result<usize> {
    Ok(host.read_file(&format!("/srv/{name}"))?.lines().count())
}

/// A unit that was destroyed and made again is a new unit, on a host that saw neither too.
fn made_again(lab: &Lab) -> Result<()> {
    let (host, stalled) = (lab.host(1), lab.host(2));
    let once = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >> /srv/%n'\n";
    for (name, content) in [("once.service", once), ("z.service", TRAIL)] {
        start(host, name, content)?;
    }
    let all_ran = |times: usize| {
        lab.wait_until(SOON, &format!("both ran {times} times"), || {
            let names = ["once.service", "z.service"];
            let mut counts = Vec::new();
            for host in lab.hosts() {
                for name in names {
                    counts.push(ran(host, name)?);
                }
            }
            ensure!(counts == [times; 4], "they ran {counts:?} times");
            Ok(true)
        })
    };
    all_ran(1)?;
    let pid = fleetd(stalled)?;
    stalled.sh(&format!("kill -STOP {pid}"))?.ok()?;
    for name in ["once.service", "z.service"] {
        host.sh(&format!(
            "cd /root; fleetctl destroy {name}; fleetctl start --no-block {name}"
        ))?
        .ok()?;
    }
    lab.wait_until(SOON, "they ran again where fleetd runs", || {
        Ok(ran(host, "once.service")? == 2 && ran(host, "z.service")? == 2)
    })?;
    stalled.sh(&format!("kill -CONT {pid}"))?.ok()?;
    all_ran(2)
}
