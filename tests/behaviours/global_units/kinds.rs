//! Shows that units of all kinds work together as on a single host: sockets, timers, paths, mounts, targets, instances.

use anyhow::ensure;

use super::{SLEEPER, SOON, await_on, destroy_all, fleetctl, on_three_hosts, write};

const EVERYWHERE: [usize; 3] = [1, 2, 3];

#[test]
fn what_activates_a_unit_is_started_and_the_unit_only_loaded() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        write(
            one,
            &[
                (
                    "echo.socket",
                    "[Socket]\nListenStream=10.99.2.1:7\nFreeBind=yes\n[X-Fleet]\nGlobal=true\n",
                ),
                ("echo.service", SLEEPER),
                (
                    "tick.timer",
                    "[Timer]\nOnActiveSec=0\nAccuracySec=1ms\n[X-Fleet]\nGlobal=true\n",
                ),
                (
                    "tick.service",
                    "[Service]\nExecStart=/bin/touch /run/ticked\n[X-Fleet]\nGlobal=true\n",
                ),
                (
                    "drop.path",
                    "[Path]\nPathExists=/run/dropped\n[X-Fleet]\nGlobal=true\n",
                ),
                ("drop.service", SLEEPER),
            ],
        )?;
        fleetctl(one, "load echo.service tick.service drop.service")?.ok()?;
        fleetctl(one, "start --wait echo.socket tick.timer drop.path")?.ok()?;
        for host in lab.hosts() {
            host.sh("ip address add 10.99.2.1 dev lo && touch /run/dropped")?
                .ok()?;
            host.sh("exec bash -c ': > /dev/tcp/10.99.2.1/7'")?.ok()?;
        }
        for service in ["echo.service", "drop.service"] {
            await_on(lab, service, "active", &EVERYWHERE)?;
        }
        lab.wait_until(SOON, "the timer has elapsed everywhere", || {
            lab.hosts()
                .iter()
                .try_for_each(|host| host.read_file("/run/ticked").map(drop))?;
            Ok(true)
        })?;
        // To load what another unit has started is not to stop it.
        fleetctl(one, "load echo.service")?.ok()?;
        fleetctl(one, "stop echo.socket drop.path")?.ok()?;
        await_on(lab, "echo.socket", "inactive", &EVERYWHERE)?;
        await_on(lab, "echo.service", "active", &EVERYWHERE)?;
        destroy_all(lab)
    });
}

#[test]
fn units_that_require_each_other_start_together_and_are_enabled_until_destroyed() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        write(
            one,
            &[
                (
                    "stack.target",
                    "[Unit]\nRequires=worker@1.service worker@b.service\nAfter=worker@1.service worker@b.service\n[X-Fleet]\nGlobal=true\n",
                ),
                (
                    "srv-scratch.mount",
                    "[Mount]\nWhat=tmpfs\nWhere=/srv/scratch\nType=tmpfs\n[X-Fleet]\nGlobal=true\n",
                ),
                (
                    "worker@.service",
                    "[Unit]\nRequiresMountsFor=/srv/scratch\n[Service]\nExecStartPre=/bin/touch /srv/scratch/%i\n\
                     ExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\nAlias=%p-%i-too.service\n\
                     [X-Fleet]\nGlobal=true\n",
                ),
            ],
        )?;
        // What is required comes last, on purpose.
        let started = fleetctl(
            one,
            "start --wait stack.target worker@1 worker@b.service srv-scratch.mount",
        )?;
        ensure!(
            started.code == 1,
            "systemd takes an alias without an instance: {started:?}"
        );
        let cluster = fleetctl(one, "status")?.ok()?;
        ensure!(cluster.contains("worker@1.service: systemd refused: Cannot alias worker@1.service as worker-1-too.service."), "{cluster}");
        // Refused again at each try, and that is no reason to have systemd read all its files again.
        let reloads = || {
            one.sh("journalctl _PID=1 --grep='^Reloading' --output=cat | wc -l")?
                .ok()
        };
        let before = reloads()?;
        lab.wait_until(SOON, "it is still refused", || {
            Ok(fleetctl(one, "status")?.ok()?.contains("Cannot alias"))
        })?;
        one.sh("sleep 3")?.ok()?;
        assert_eq!(reloads()?, before);

        one.sh("sed -i /Alias=/d /root/worker@.service")?.ok()?;
        fleetctl(
            one,
            "start --wait=30s --replace stack.target worker@1 worker@b.service srv-scratch.mount",
        )?
        .ok()?;
        for unit in [
            "stack.target",
            "worker@1.service",
            "worker@b.service",
            "srv-scratch.mount",
        ] {
            await_on(lab, unit, "active", &EVERYWHERE)?;
        }
        for host in lab.hosts() {
            host.sh("test -e /srv/scratch/1 -a -e /srv/scratch/b && mountpoint -q /srv/scratch")?
                .ok()?;
            assert_eq!(
                host.sh("systemctl is-enabled worker@1")?.ok()?,
                "enabled-runtime\n"
            );
            let wants = host.systemctl_show("multi-user.target", "Wants")?;
            ensure!(wants.contains("worker@b.service"), "{wants}");
        }
        destroy_all(lab)?;
        for host in lab.hosts() {
            ensure!(
                host.sh("mountpoint -q /srv/scratch")?.code != 0,
                "{} has the mount",
                host.name()
            );
            let wants = host.sh("systemctl daemon-reload; systemctl show --value --property=Wants multi-user.target")?.ok()?;
            ensure!(!wants.contains("worker"), "{wants}");
        }
        Ok(())
    });
}
