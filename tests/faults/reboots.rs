//! Shows that a machine restores its units after a reboot, with and without the registry.

use anyhow::ensure;
use lab::{Host, Lab};

use crate::support::workload::{self, SOON, active, at_rest, launch, runs, works};

/// As systemd-soft-reboot.service(8) has it.
const SURVIVOR: &str = "[Unit]\nDefaultDependencies=no\nSurviveFinalKillSignal=yes\n\
    IgnoreOnIsolate=yes\nConflicts=reboot.target kexec.target poweroff.target halt.target\n\
    [Service]\nExecStart=/bin/sh -c 'echo ran >> /srv/survivor; exec sleep infinity'\n";

#[test]
fn a_machine_that_reboots_runs_everything_once_more() {
    Lab::builder().hosts(3).etcd(1).test_on_all_suites(|lab| {
        workload::start(lab)?;
        let (rebooted, cut) = (lab.host(2), lab.host(3));
        rebooted.reboot()?;
        cut.power_off()?;
        cut.power_on()?;
        for host in [rebooted, cut] {
            lab.wait_until(SOON, "every unit ran once more", || {
                Ok(runs(host)?.values().all(|runs| *runs == 2))
            })?;
        }
        at_rest(lab)?;
        works(lab, "after.service")?;
        for host in [rebooted, cut] {
            ensure!(
                runs(host)?.values().all(|runs| *runs == 2),
                "{}: {:?}",
                host.name(),
                runs(host)?
            );
        }
        ensure!(
            runs(lab.host(1))?.values().all(|runs| *runs == 1),
            "the host that stayed up: {:?}",
            runs(lab.host(1))?
        );
        Ok(())
    });
}

#[test]
fn reboot_without_a_registry_restores_units_from_disk() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        workload::start(lab)?;
        let (speaker, rebooted, cut) = (lab.host(1), lab.host(2), lab.host(3));
        launch(speaker, "goes.service")?;
        active(lab, "goes.service", lab.hosts())?;
        for host in [rebooted, cut] {
            host.power_off()?;
        }
        // Changed while they are off. Then the registry fails too: it is dead, which is noticed at
        // once, or it hangs.
        speaker.fleetctl(&["destroy", "goes.service"])?.ok()?;
        launch(speaker, "comes.service")?;
        let comes_back = |host: &Host| {
            active(lab, "goes.service", [host])?;
            lab.wait_until(SOON, "every unit ran once more", || {
                Ok(runs(host)?.values().all(|runs| *runs == 2))
            })?;
            ensure!(
                !host.is_active("comes.service"),
                "{} knows what it cannot know",
                host.name()
            );
            Ok(())
        };
        lab.member(1).kill()?;
        rebooted.power_on()?;
        comes_back(rebooted)?;
        lab.member(1).restart()?;
        lab.member(1).pause()?;
        cut.power_on()?;
        comes_back(cut)?;
        lab.member(1).resume()?;
        active(lab, "comes.service", lab.hosts())?;
        lab.wait_until(SOON, "what was destroyed stops", || {
            Ok(!lab
                .hosts()
                .iter()
                .any(|host| host.is_active("goes.service")))
        })?;
        works(lab, "after.service")?;
        for host in [rebooted, cut] {
            ensure!(
                runs(host)?.values().all(|runs| *runs == 2),
                "{}: {:?}",
                host.name(),
                runs(host)?
            );
        }
        Ok(())
    });
}

#[test]
fn soft_reboot_runs_everything_again_but_survivors() {
    Lab::builder().hosts(1).etcd(1).suite("trixie").test(|lab| {
        workload::start(lab)?;
        let host = lab.host(1);
        workload::write(host, "survivor.service", SURVIVOR)?;
        host.sh("cd /root; fleetctl start --wait survivor.service")?
            .ok()?;
        let survivor = host.main_pid("survivor.service")?;
        // The second time from its own disk.
        for times in [2, 3] {
            host.soft_reboot()?;
            lab.wait_until(SOON, "every unit ran once more", || {
                Ok(runs(host)?.values().all(|runs| *runs == times))
            })?;
            at_rest(lab)?;
            let now = host.main_pid("survivor.service")?;
            ensure!(now == survivor, "the survivor was {survivor} and is {now}");
            lab.member(1).kill()?;
        }
        lab.member(1).restart()?;
        works(lab, "after.service")?;
        let runs = runs(host)?;
        ensure!(runs.values().all(|runs| *runs == 3), "{runs:?}");
        ensure!(host.read_file("/srv/survivor")?.lines().count() == 1);
        Ok(())
    });
}
