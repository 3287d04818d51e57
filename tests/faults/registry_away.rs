//! Shows that units run on while the registry is unreachable, that fleet reports it, and that it
//! continues by itself afterwards.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lab::Lab;

use crate::support::workload::{self, SOON, fleet_journal, status_text, untouched, works};

#[test]
fn a_dead_or_hanging_registry_is_named_and_stops_nothing() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let etcd = lab.member(1);
        for how in ["dead", "hanging"] {
            match how {
                "dead" => etcd.kill()?,
                _ => etcd.pause()?,
            }
            for command in [&["status"][..], &["stop", "long.service"]] {
                let asked = Instant::now();
                let said = lab.host(1).fleetctl(command)?;
                ensure!(
                    said.code == 1 && said.stderr.contains("registry"),
                    "{how}: {said:?}"
                );
                // Its request timeout is 3 s. The rest is for a busy machine.
                ensure!(
                    asked.elapsed() < Duration::from_secs(15),
                    "{how}: {command:?} took {:?}",
                    asked.elapsed()
                );
            }
            for host in lab.hosts() {
                lab.wait_until(
                    SOON,
                    &format!("{} says that the registry is {how}", host.name()),
                    || {
                        let why = "registry unavailable: etcd http://10.99.0.1:2379: ";
                        Ok(status_text(host)?.contains(why) && fleet_journal(host)?.contains(why))
                    },
                )?;
            }
            untouched(lab, &before, how)?;
            match how {
                "dead" => etcd.restart()?,
                _ => etcd.resume()?,
            }
            for host in lab.hosts() {
                lab.wait_until(SOON, "fleet answers again", || {
                    Ok(host.fleetctl(&["list-units"])?.code == 0)
                })?;
                lab.wait_until(SOON, "the status line is clean again", || {
                    Ok(!status_text(host)?.contains("registry"))
                })?;
            }
            works(lab, &format!("after-{how}.service"))?;
            untouched(lab, &before, how)?;
        }
        Ok(())
    });
}
