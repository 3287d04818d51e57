//! Shows that containers come back: after a power cut without any registry, after their monitor
//! died, and everywhere else if one machine has no podman.

use anyhow::ensure;
use lab::{Host, Lab};

use super::{SOON, commands, end_of_rollout, fleetctl, on_three_hosts};

#[test]
fn containers_come_back_without_any_registry() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        one.write_file("/root/hello.service", include_str!("hello.service"))?;
        one.write_file("/root/app-a.yaml", include_str!("app-a.yaml"))?;

        // Two machines are not held up by the third, which says what it lacks.
        let three = lab.host(3);
        three.sh("mv /usr/bin/podman /usr/bin/podman.away")?.ok()?;
        fleetctl(lab, "start app-a.yaml")?.ok()?;
        run(lab, &lab.hosts()[..2], &["app-a"])?;
        lab.wait_until(SOON, "the reason is explained", || {
            let explained = fleetctl(lab, "explain app-a.service")?.stdout;
            let mut reasons = explained.lines().filter(|line| line.starts_with("  no "));
            ensure!(
                reasons.any(|line| line.contains("AssertFileIsExecutable=/usr/bin/podman")),
                "{explained}"
            );
            Ok(true)
        })?;
        three.sh("mv /usr/bin/podman.away /usr/bin/podman")?.ok()?;
        fleetctl(lab, "restart app-a.service")?.ok()?;
        end_of_rollout(lab, "app-a.service")?.ok()?;
        fleetctl(lab, "start hello.service")?.ok()?;
        run(lab, lab.hosts(), &["app-a", "busybox1"])?;

        let main = one.main_pid("app-a.service")?;
        one.sh(&format!("kill -KILL {main}"))?.ok()?;
        lab.wait_until(SOON, "another monitor runs", || {
            let now = one.main_pid("app-a.service")?;
            Ok(now != 0 && now != main && one.is_active("app-a.service"))
        })?;
        run(lab, lab.hosts(), &["app-a", "busybox1"])?;

        lab.member(1).partition()?;
        lab.images().stop()?;
        lab.hosts().iter().try_for_each(Host::power_off)?;
        lab.hosts().iter().try_for_each(Host::power_on)?;
        run(lab, lab.hosts(), &["app-a", "busybox1"])?;
        for host in lab.hosts() {
            let url = format!("http://{}:8000", host.address());
            lab.wait_until(SOON, &format!("{} answers", host.name()), || {
                let said = host.sh(&format!("curl --silent --max-time 3 {url}"))?;
                Ok(said.stdout.contains("Welcome to nginx!"))
            })?;
        }
        Ok(())
    });
}

/// Waits until exactly these containers run on these hosts.
fn run(lab: &Lab, hosts: &[Host], names: &[&str]) -> anyhow::Result<()> {
    lab.wait_until(SOON, &format!("{names:?} run"), || {
        for host in hosts {
            let found = commands(host)?;
            let mut running: Vec<&str> = found
                .lines()
                .filter_map(|line| Some(line.split_once(':')?.0))
                .collect();
            running.sort_unstable();
            ensure!(running == names, "{}: {found}", host.name());
        }
        Ok(true)
    })
}
