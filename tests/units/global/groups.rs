//! Shows what orders do to units that hold others, to a type that hosts do not have, and to a
//! oneshot in the middle of its run.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::{SLEEPER, SOON, await_on, destroy_all, fleetctl, main_pids, on_three_hosts, write};

const GLOBAL: &str = "[X-Fleet]\nGlobal=true\n";

#[test]
fn units_that_hold_others_or_are_in_a_run_harm_none() {
    on_three_hosts(|lab| {
        target(lab).context("a target")?;
        slice(lab).context("a slice")?;
        swap(lab).context("a swap")?;
        oneshot(lab).context("a oneshot")
    });
}

fn each<T>(lab: &Lab, look: impl Fn(&Host) -> Result<T>) -> Result<Vec<T>> {
    lab.hosts().iter().map(look).collect()
}

/// It gets what is new in it, and its members run on.
fn target(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let member = "[Unit]\nPartOf=app.target\n[Service]\nExecStart=/bin/sleep infinity\n";
    let target = |wants: &str| format!("[Unit]\nWants={wants}\n{GLOBAL}");
    for host in lab.hosts() {
        host.write_file("/etc/systemd/system/member.service", member)?;
        host.sh("systemctl daemon-reload; systemctl start member.service")?
            .ok()?;
    }
    let names = ["a.service", "b.service"];
    write(one, &names.map(|name| (name, SLEEPER)))?;
    write(one, &[("app.target", &target("a.service"))])?;
    fleetctl(one, "load a.service b.service")?.ok()?;
    fleetctl(one, "start --wait app.target")?.ok()?;
    await_on(lab, "a.service", "active", &[1, 2, 3])?;
    let before = (
        main_pids(lab, "member.service")?,
        main_pids(lab, "a.service")?,
    );
    write(one, &[("app.target", &target("a.service b.service"))])?;
    fleetctl(one, "start --wait --replace app.target")?.ok()?;
    await_on(lab, "b.service", "active", &[1, 2, 3])?;
    let after = (
        main_pids(lab, "member.service")?,
        main_pids(lab, "a.service")?,
    );
    ensure!(before == after, "{before:?} became {after:?}");
    // A stop of the target stops its members, as with systemctl.
    destroy_all(lab)?;
    each(lab, |host| host.sh("systemctl stop member.service")?.ok()).map(drop)
}

/// Units in it run on when it is changed, and when it is gone.
fn slice(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let slice = |tasks: u32| format!("[Slice]\nTasksMax={tasks}\n{GLOBAL}");
    let member = SLEEPER.replace("[Service]\n", "[Service]\nSlice=app.slice\n");
    write(one, &[("app.slice", &slice(100)), ("web.service", &member)])?;
    // The slice is there by the time its own file comes.
    fleetctl(one, "start --wait web.service app.slice")?.ok()?;
    let before = main_pids(lab, "web.service")?;
    write(one, &[("app.slice", &slice(200))])?;
    fleetctl(one, "start --wait --replace app.slice")?.ok()?;
    for host in lab.hosts() {
        let path = host.systemctl_show("app.slice", "FragmentPath")?;
        ensure!(path.ends_with("/app.slice"), "{path}");
        ensure!(host.systemctl_show("app.slice", "TasksMax")? == "200");
    }
    fleetctl(one, "destroy app.slice")?.ok()?;
    lab.wait_until(SOON, "its file is gone", || {
        let path = "/run/fleet/units/app.slice";
        Ok(lab.hosts().iter().all(|host| !host.path(path).exists()))
    })?;
    ensure!(main_pids(lab, "web.service")? == before, "it was touched");
    let status = fleetctl(one, "status")?;
    ensure!(status.stdout.contains("Problems: none"), "{status:?}");
    destroy_all(lab)
}

/// A container has none: that is what people are told, and nothing else is held up.
fn swap(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let swap = format!("[Swap]\nWhat=/srv/swap\n{GLOBAL}");
    write(
        one,
        &[("srv-swap.swap", &swap), ("beside.service", SLEEPER)],
    )?;
    let started = fleetctl(one, "start --wait srv-swap.swap beside.service")?;
    ensure!(
        started.code == 1 && started.stderr.contains("srv-swap.swap: not ready"),
        "{started:?}"
    );
    await_on(lab, "beside.service", "active", &[1, 2, 3])?;
    destroy_all(lab)
}

/// Its run is longer than the deadline of the update, and is not ended by that.
fn oneshot(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let job = |seconds: u32| {
        let command = format!(
            "echo begins {seconds} >> /srv/job; sleep {seconds}; echo ends {seconds} >> /srv/job"
        );
        format!(
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c '{command}'\n{GLOBAL}ProgressDeadlineSec=2\nMaxUnavailable=3\n"
        )
    };
    write(one, &[("job.service", &job(1))])?;
    fleetctl(one, "start --wait job.service")?.ok()?;
    write(one, &[("job.service", &job(6))])?;
    fleetctl(one, "start --wait --replace job.service")?.ok()?;
    for host in lab.hosts() {
        let ran = host.read_file("/srv/job")?;
        ensure!(ran == "begins 1\nends 1\nbegins 6\nends 6\n", "{ran}");
    }
    destroy_all(lab)
}
