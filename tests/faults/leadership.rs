//! Shows that another leader follows, however the leader is lost, and that no unit is affected.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::support::workload::{self, SOON, fleetd, leader, untouched, works};

#[test]
fn leader_stopped_killed_or_stalled_is_replaced() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        // A killed leader must not return before another one leads.
        for host in lab.hosts() {
            host.write_file(
                "/etc/systemd/system/fleet.service.d/test.conf",
                "[Service]\nRestart=no\n",
            )?;
            host.exec(&["systemctl", "daemon-reload"])?.ok()?;
        }
        for how in ["systemctl stop fleet.service", "kill -KILL"] {
            let old = leads(lab, lab.hosts())?;
            let others: Vec<&Host> = lab
                .hosts()
                .iter()
                .filter(|host| host.number() != old.number())
                .collect();
            match how {
                "kill -KILL" => signal(old, "KILL")?,
                stop => drop(old.sh(stop)?.ok()?),
            }
            let new = leads(lab, others.iter().copied())?;
            ensure!(new.number() != old.number());
            untouched(lab, &before, how)?;
            old.exec(&["systemctl", "start", "fleet.service"])?.ok()?;
        }

        let stalled = leads(lab, lab.hosts())?;
        signal(stalled, "STOP")?;
        let others: Vec<&Host> = lab
            .hosts()
            .iter()
            .filter(|host| host.number() != stalled.number())
            .collect();
        let new = leads(lab, others.iter().copied())?;
        // Long after its lease has ended it continues, still believing that it leads.
        std::thread::sleep(Duration::from_secs(7));
        signal(stalled, "CONT")?;
        lab.wait_until(
            SOON,
            "the one that was stalled knows that it does not lead",
            || Ok(!says_leading(stalled)? && leader(lab, stalled)? == new.number()),
        )?;
        ensure!(says_leading(new)?, "the new leader does not say so");
        works(lab, "after.service")?;
        untouched(lab, &before, "a leader that stalled")
    });
}

/// Waits until one of these hosts reports that it leads, and the first one agrees.
fn leads<'a>(lab: &'a Lab, among: impl IntoIterator<Item = &'a Host>) -> Result<&'a Host> {
    let among: Vec<&Host> = among.into_iter().collect();
    let mut found = 0;
    lab.wait_until(SOON, "one of these engines leads", || {
        found = leader(lab, among[0])?;
        Ok(among.iter().any(|host| host.number() == found) && says_leading(lab.host(found))?)
    })?;
    Ok(lab.host(found))
}

fn says_leading(host: &Host) -> Result<bool> {
    Ok(workload::status_text(host)?.contains("leading"))
}

fn signal(host: &Host, signal: &str) -> Result<()> {
    host.sh(&format!("kill -{signal} {}", fleetd(host)?))?
        .ok()
        .map(drop)
}
