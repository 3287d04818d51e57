//! Shows that units of all kinds work together as on a single host: sockets, timers, paths, mounts,
//! targets, instances.

use anyhow::ensure;

use super::{SLEEPER, SOON, await_on, destroy_all, fleetctl, main_pids, on_three_hosts, write};

const EVERYWHERE: [usize; 3] = [1, 2, 3];

#[test]
fn activating_unit_is_started_and_its_target_only_loaded() {
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
        // Loading a unit that another unit has started does not stop it.
        fleetctl(one, "load echo.service")?.ok()?;
        fleetctl(one, "stop echo.socket drop.path")?.ok()?;
        await_on(lab, "echo.socket", "inactive", &EVERYWHERE)?;
        await_on(lab, "echo.service", "active", &EVERYWHERE)?;
        destroy_all(lab)
    });
}

const WORKER: &str = "\
[Unit]
RequiresMountsFor=/srv/scratch

[Service]
ExecStartPre=/bin/touch /srv/scratch/%i
ExecStart=/bin/sleep infinity

[X-Fleet]
Global=true

[Install]
WantedBy=multi-user.target
";

/// A unit that fails unless its maker exists and was started first.
const READER: &str = "\
[Unit]
Wants=maker.service
After=maker.service

[Service]
Type=oneshot
ExecStart=/bin/cat /run/made

[X-Fleet]
Global=true
";

const MAKER: &str = "\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'sleep 1; touch /run/made'

[X-Fleet]
Global=true
";

#[test]
fn units_requiring_each_other_start_together() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let wants = "worker@1.service worker@b.service";
        let stack = format!("[Unit]\nRequires={wants}\nAfter={wants}\n[X-Fleet]\nGlobal=true\n");
        let mount = "[Mount]\nWhat=tmpfs\nWhere=/srv/scratch\nType=tmpfs\n[X-Fleet]\nGlobal=true\n";
        write(
            one,
            &[
                ("stack.target", &stack),
                ("srv-scratch.mount", mount),
                ("worker@.service", WORKER),
                ("reader.service", READER),
                ("maker.service", MAKER),
            ],
        )?;
        // Required and wanted units are last on purpose.
        let units = "reader maker stack.target worker@1 worker@b.service srv-scratch.mount";
        fleetctl(one, &format!("start --wait {units}"))?.ok()?;
        for host in lab.hosts() {
            host.sh("test -e /srv/scratch/1 -a -e /srv/scratch/b && mountpoint -q /srv/scratch")?
                .ok()?;
            host.sh("systemctl is-active stack.target worker@1 worker@b srv-scratch.mount")?
                .ok()?;
            let enabled = host.sh("systemctl is-enabled worker@1")?.ok()?;
            assert_eq!(enabled, "enabled-runtime\n");
            host.sh("test -L /run/systemd/system/multi-user.target.wants/worker@b.service")?
                .ok()?;
        }
        destroy_all(lab)?;
        for host in lab.hosts() {
            ensure!(
                host.sh("mountpoint -q /srv/scratch")?.code != 0,
                "{} has the mount",
                host.name()
            );
        }
        Ok(())
    });
}

#[test]
fn a_unit_that_cannot_be_enabled_runs_on_and_costs_no_reloads() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        write(one, &[("srv-x@.service", SLEEPER)])?;
        fleetctl(one, "start --wait srv-x@1")?.ok()?;
        let before = main_pids(lab, "srv-x@1.service")?;
        // An alias of an instance must be an instance too.
        let aliased = format!("{SLEEPER}[Install]\nAlias=y.service\n");
        write(one, &[("srv-x@1.service", &aliased)])?;
        let started = fleetctl(one, "start --wait --replace srv-x@1")?;
        let why = "systemd refused: Cannot alias srv-x@1.service as y.service.";
        ensure!(
            started.code == 1 && started.stderr.contains(why),
            "{started:?}"
        );
        let reloads = || {
            one.sh("journalctl _PID=1 --grep=^Reloading --output=cat | wc -l")?
                .ok()
        };
        let counted = reloads()?;
        // It is tried repeatedly, and every attempt fails.
        let tries =
            "busctl monitor --json=short org.freedesktop.systemd1 | grep -m 3 'Cannot alias'";
        one.sh(tries)?.ok()?;
        assert_eq!(reloads()?, counted);
        ensure!(
            main_pids(lab, "srv-x@1.service")? == before,
            "it was restarted"
        );
        destroy_all(lab)
    });
}
