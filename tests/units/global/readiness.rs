//! Shows when a unit counts as ready, and that `start --wait` ends exactly then.

use anyhow::ensure;

use super::{destroy_all, fleetctl, on_three_hosts, write};

#[test]
fn a_oneshot_runs_once_a_start_and_is_ready_when_it_has() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        write(
            one,
            &[
                (
                    "once.service",
                    "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep 1; echo ran >> /run/once'\n[X-Fleet]\nGlobal=true\n",
                ),
                (
                    "never.service",
                    "[Service]\nType=oneshot\nExecStart=/bin/false\n[X-Fleet]\nGlobal=true\n",
                ),
            ],
        )?;
        let runs = |expected: usize| {
            for host in lab.hosts() {
                let runs = host
                    .read_file("/run/once")
                    .unwrap_or_default()
                    .lines()
                    .count();
                ensure!(
                    runs == expected,
                    "it ran {runs} times on {}, and not {expected}",
                    host.name()
                );
            }
            Ok(())
        };
        fleetctl(one, "load once")?.ok()?;
        fleetctl(one, "start --wait once")?.ok()?;
        runs(1)?;
        fleetctl(one, "status once")?.ok()?;
        // A finished run stays finished, for other units and for an agent that is restarted.
        fleetctl(one, "start --wait once")?.ok()?;
        ensure!(fleetctl(one, "start --wait never")?.code == 1);
        lab.host(2)
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        fleetctl(lab.host(2), "start --wait once")?.ok()?;
        runs(1)?;
        fleetctl(one, "stop once")?.ok()?;
        ensure!(
            fleetctl(one, "status once")?.code == 3,
            "a stopped oneshot counts as active"
        );
        fleetctl(one, "start --wait once")?.ok()?;
        runs(2)?;
        destroy_all(lab)
    });
}

#[test]
fn service_that_reports_readiness_is_ready_only_then() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        write(
            one,
            &[
                (
                    "slow.service",
                    "[Service]\nType=notify\nNotifyAccess=all\n\
             ExecStart=/bin/sh -c 'until test -e /run/go; do sleep 0.1; done; systemd-notify --ready; exec sleep infinity'\n[X-Fleet]\nGlobal=true\n",
                ),
                (
                    "silent.service",
                    "[Service]\nType=notify\nExecStart=/bin/sleep infinity\n[X-Fleet]\nGlobal=true\n",
                ),
            ],
        )?;
        let impatient = fleetctl(one, "start --wait=5s slow")?;
        ensure!(impatient.code == 1, "{impatient:?}");
        let why = "slow.service: not ready on 190c6f8f.../10.99.1.1: activating (start)";
        ensure!(impatient.stderr.contains(why), "{impatient:?}");
        let status = fleetctl(one, "status slow")?;
        ensure!(
            status.code == 3 && status.stdout.contains("activating (start)"),
            "{status:?}"
        );
        for host in lab.hosts() {
            ensure!(!host.is_active("slow.service"), "on {}", host.name());
            host.write_file("/run/go", "")?;
        }
        fleetctl(one, "start --wait slow")?.ok()?;
        for host in lab.hosts() {
            ensure!(host.is_active("slow.service"), "not on {}", host.name());
        }
        let silent = fleetctl(one, "start --wait=1s silent")?;
        ensure!(
            silent.code == 1 && silent.stderr.contains("silent.service: not ready after 1s"),
            "{silent:?}"
        );
        destroy_all(lab)
    });
}
