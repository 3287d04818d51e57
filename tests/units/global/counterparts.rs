//! Shows the effect of an update or a removal on units that work together, such as a socket and its
//! service.

use anyhow::ensure;
use lab::Host;

use super::{SLEEPER, SOON, await_on, destroy_all, fleetctl, on_three_hosts, write};

const GLOBAL: &str = "[X-Fleet]\nGlobal=true\n";

fn lines(host: &Host, path: &str) -> usize {
    host.read_file(path).map_or(0, |text| text.lines().count())
}

#[test]
fn destroyed_unit_is_started_by_no_other_unit() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let job =
            format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo >> /srv/job'\n{GLOBAL}");
        let timer =
            format!("[Timer]\nOnActiveSec=1\nOnUnitActiveSec=1\nAccuracySec=100ms\n{GLOBAL}");
        write(one, &[("job.service", &job), ("job.timer", &timer)])?;
        one.write_file(
            "/etc/systemd/system/x.target",
            "[Unit]\nWants=job.service\n",
        )?;
        for order in ["destroy job.service", "unload job.service"] {
            fleetctl(one, "load job.service")?.ok()?;
            fleetctl(one, "start --wait job.timer")?.ok()?;
            one.sh("systemctl daemon-reload; systemctl restart x.target")?
                .ok()?;
            fleetctl(one, order)?.ok()?;
            for host in lab.hosts() {
                lab.wait_until(SOON, "systemd has forgotten it", || {
                    Ok(host.systemctl_show("job.service", "LoadState")? == "not-found")
                })?;
            }
            let before = lines(one, "/srv/job");
            one.sh("systemctl restart x.target; sleep 3")?.ok()?;
            ensure!(lines(one, "/srv/job") == before, "it ran after `{order}`");
            fleetctl(one, "destroy job.timer")?.ok()?;
        }
        destroy_all(lab)
    });
}

#[test]
fn a_unit_that_systemd_did_not_start_is_not_ready() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        for host in lab.hosts() {
            host.write_file(
                "/etc/systemd/system/bad.service",
                "[Service]\nType=oneshot\nExecStart=/bin/false\n",
            )?;
        }
        let oneshot = "[Service]\nType=oneshot\nExecStart=/bin/true\n";
        for (unit, why) in [
            ("[Unit]\nAssertPathExists=/nope\n", "assertion"),
            (
                "[Unit]\nRequires=bad.service\nAfter=bad.service\n",
                "dependency",
            ),
        ] {
            for service in [oneshot, "[Service]\nExecStart=/bin/sleep infinity\n"] {
                write(
                    one,
                    &[("once.service", &format!("{unit}{service}{GLOBAL}"))],
                )?;
                let started = fleetctl(one, "start --wait once.service")?;
                ensure!(
                    started.code == 1 && started.stderr.contains(why),
                    "{started:?}"
                );
                destroy_all(lab)?;
            }
        }
        for service in [oneshot, "[Service]\nExecStart=/bin/sleep infinity\n"] {
            let skipped = format!("{service}ExecCondition=/bin/false\n{GLOBAL}");
            write(one, &[("once.service", &skipped)])?;
            fleetctl(one, "start --wait once.service")?.ok()?;
            destroy_all(lab)?;
        }
        Ok(())
    });
}

#[test]
fn a_socket_listens_at_its_new_address_while_its_service_runs() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let socket = |port: u32| format!("[Socket]\nListenStream=127.0.0.1:{port}\n{GLOBAL}");
        write(
            one,
            &[("echo.socket", &socket(7001)), ("echo.service", SLEEPER)],
        )?;
        fleetctl(one, "load echo.service")?.ok()?;
        fleetctl(one, "start --wait echo.socket")?.ok()?;
        for host in lab.hosts() {
            host.sh("exec bash -c ': > /dev/tcp/127.0.0.1/7001'")?
                .ok()?;
        }
        await_on(lab, "echo.service", "active", &[1, 2, 3])?;
        write(one, &[("echo.socket", &socket(7002))])?;
        fleetctl(one, "start --wait --replace echo.socket")?.ok()?;
        for host in lab.hosts() {
            host.sh("exec bash -c ': > /dev/tcp/127.0.0.1/7002'")?
                .ok()?;
        }
        destroy_all(lab)
    });
}

#[test]
fn a_timer_takes_new_times_by_a_reload_and_heals_after_bad_ones() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let job =
            format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo >> /srv/tick'\n{GLOBAL}");
        let timer = |when: &str| format!("[Timer]\n{when}\n{GLOBAL}");
        write(
            one,
            &[
                ("tick.service", &job),
                ("tick.timer", &timer("OnBootSec=10h")),
            ],
        )?;
        fleetctl(one, "load tick.service")?.ok()?;
        fleetctl(one, "start --wait tick.timer")?.ok()?;
        write(one, &[("tick.timer", &timer("OnCalendar=*-*-* 02:00"))])?;
        fleetctl(one, "start --wait --replace tick.timer")?.ok()?;
        write(one, &[("tick.timer", &timer("OnCalendar=*-*-* 03:00"))])?;
        fleetctl(one, "start --wait --replace tick.timer")?.ok()?;
        for host in lab.hosts() {
            ensure!(lines(host, "/srv/tick") == 0, "an update has run the job");
        }
        write(one, &[("tick.timer", &timer("OnCalendar=*:78:0"))])?;
        let bad = fleetctl(one, "start --wait --replace tick.timer")?;
        ensure!(bad.code != 0, "{bad:?}");
        for host in lab.hosts() {
            lab.wait_until(SOON, "the timer waits for its next time", || {
                let next = host.systemctl_show("tick.timer", "NextElapseUSecRealtime")?;
                let sub = host.systemctl_show("tick.timer", "SubState")?;
                ensure!(
                    !next.is_empty() && sub == "waiting",
                    "{}: {next:?} {sub}",
                    host.name()
                );
                Ok(true)
            })?;
        }
        destroy_all(lab)
    });
}

#[test]
fn a_timer_that_comes_before_its_service_starts_with_it() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let timer = format!("[Timer]\nOnCalendar=daily\nUnit=n.service\n{GLOBAL}");
        write(one, &[("b.timer", &timer), ("n.service", SLEEPER)])?;
        let started = fleetctl(one, "start --wait b.timer")?;
        let why = "n.service, which it starts, is not on this machine";
        ensure!(
            started.code == 1 && started.stderr.contains(why),
            "{started:?}"
        );
        fleetctl(one, "load n.service")?.ok()?;
        await_on(lab, "b.timer", "active", &[1, 2, 3])?;
        destroy_all(lab)
    });
}

#[test]
fn a_slice_changes_and_goes_without_its_units() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let slice = |tasks: u32| format!("[Slice]\nTasksMax={tasks}\n{GLOBAL}");
        let local = "[Service]\nExecStart=/bin/sleep infinity\nSlice=app.slice\n";
        one.write_file("/etc/systemd/system/local.service", local)?;
        // systemd creates the slice by itself, without a file.
        one.sh("systemctl daemon-reload; systemctl start local.service")?
            .ok()?;
        let pid = one.main_pid("local.service")?;
        for tasks in [100, 200] {
            write(one, &[("app.slice", &slice(tasks))])?;
            fleetctl(one, "start --wait --replace app.slice")?.ok()?;
            for host in lab.hosts() {
                let shown = host.systemctl_show("app.slice", "TasksMax")?;
                ensure!(shown == tasks.to_string(), "{}: {shown}", host.name());
            }
        }
        destroy_all(lab)?;
        ensure!(
            one.main_pid("local.service")? == pid,
            "local.service was touched"
        );
        Ok(())
    });
}

#[test]
fn a_run_older_than_its_file_is_restarted_at_its_launch() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        let service = |v: u32| {
            format!("[Service]\nEnvironment=V={v}\nExecStart=/bin/sleep infinity\n{GLOBAL}")
        };
        write(one, &[("a.service", &service(1))])?;
        fleetctl(one, "load a.service")?.ok()?;
        for host in lab.hosts() {
            lab.wait_until(SOON, "it can be started", || {
                Ok(host.sh("systemctl start a.service")?.code == 0)
            })?;
        }
        write(one, &[("a.service", &service(2))])?;
        fleetctl(one, "start --replace --wait a.service")?.ok()?;
        for host in lab.hosts() {
            let pid = host.main_pid("a.service")?;
            host.sh(&format!(
                "tr '\\0' '\\n' < /proc/{pid}/environ | grep -x V=2"
            ))?
            .ok()?;
        }
        destroy_all(lab)
    });
}
