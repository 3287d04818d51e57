//! Shows that a mount that is busy is asked to go a few times, and that people are told.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lab::Lab;

use crate::support::looking::{SOON, gone_everywhere, listed, settled, told};

const MOUNT: &str = "[Mount]\nWhat=tmpfs\nWhere=/srv/x\nType=tmpfs\nOptions=size=10M\n\
    [X-Fleet]\nGlobal=true\nMinReadySec=0\n";
/// systemd does not know that this needs the mount: it would stop it first.
const USE: &str = "systemd-run --unit=user sh -c 'cd /srv/x && exec sleep infinity' && \
    until readlink /proc/$(systemctl show --value -P MainPID user)/cwd | grep -q /srv/x; do sleep 0.1; done";
/// Long enough that a try at every change of state would be seen a hundred times.
const WHILE: Duration = Duration::from_secs(10);

#[test]
fn busy_mount_is_asked_to_go_a_few_times() {
    Lab::builder().hosts(1).etcd(1).test_on_all_suites(|lab| {
        listed(lab)?;
        let host = lab.host(1);
        let tries = || {
            let journal = "journalctl --output=cat --no-pager --unit=srv-x.mount \
                | grep -c 'target is busy' || true";
            anyhow::Ok(host.sh(journal)?.ok()?.trim().parse::<usize>()?)
        };
        for verb in ["unload", "destroy"] {
            host.write_file("/root/srv-x.mount", MOUNT)?;
            host.fleetctl(&["start", "--wait", "/root/srv-x.mount"])?
                .ok()?;
            host.sh(USE)?.ok()?;
            let before = tries()?;
            host.fleetctl(&[verb, "srv-x.mount"])?.ok()?;
            told(lab, "its stop was not done: failed; it may be busy", true)?;
            let (revision, begin) = (settled(lab)?, Instant::now());
            lab.wait_until(WHILE * 3, "ten seconds are over", || {
                Ok(begin.elapsed() > WHILE)
            })?;
            let tried = tries()? - before;
            // Some seconds more have passed on a machine that is busy.
            ensure!((1..=8).contains(&tried), "{verb}: {tried} tries");
            let now = settled(lab)?;
            ensure!(now == revision, "{verb}: {} writes", now - revision);

            host.sh("systemctl stop user.service")?.ok()?;
            gone_everywhere(lab, "srv-x.mount")?;
            told(lab, "it may be busy", false)?;
        }
        Ok(())
    });
}

#[test]
fn update_of_a_busy_mount_fails_and_is_rolled_back() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        listed(lab)?;
        let host = lab.host(1);
        host.write_file("/root/srv-x.mount", MOUNT)?;
        host.fleetctl(&["start", "--wait", "/root/srv-x.mount"])?
            .ok()?;
        host.sh(USE)?.ok()?;
        host.write_file("/root/srv-x.mount", MOUNT.replace("10M", "20M"))?;
        let update = host.fleetctl(&["start", "--replace", "--wait", "/root/srv-x.mount"])?;
        ensure!([1, 7].contains(&update.code), "{update:?}");
        let is_rolled_back = || {
            let history = host.fleetctl(&["rollout", "history", "srv-x.mount"])?;
            Ok(history.ok()?.contains("rolled-back"))
        };
        lab.wait_until(SOON, "the update is rolled back", is_rolled_back)?;
        lab.wait_until(SOON, "the mount is in use as before", || {
            Ok(host.is_active("srv-x.mount"))
        })?;
        let size = host
            .sh("findmnt --noheadings --output=OPTIONS /srv/x")?
            .ok()?;
        ensure!(size.contains("size=10240k"), "{size}");
        Ok(())
    });
}
