//! Shows what updates do to units that start others, and to the units that they start.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::{SLEEPER, SOON, await_on, destroy_all, fleetctl, main_pids, on_three_hosts, write};

const GLOBAL: &str = "[X-Fleet]\nGlobal=true\n";

fn socket(port: u32, more: &str) -> String {
    format!("[Socket]\nListenStream=127.0.0.1:{port}\n{more}{GLOBAL}")
}

fn connect(lab: &Lab, port: u32) -> Result<()> {
    let script = format!("exec bash -c ': > /dev/tcp/127.0.0.1/{port}'");
    lab.hosts()
        .iter()
        .try_for_each(|host| host.sh(&script)?.ok().map(drop).context(port))
}

fn each<T>(lab: &Lab, look: impl Fn(&Host) -> Result<T>) -> Result<Vec<T>> {
    lab.hosts().iter().map(look).collect()
}

#[test]
fn a_unit_and_what_starts_it_are_updated_apart() {
    on_three_hosts(|lab| {
        service_of_a_socket(lab).context("a service and its socket")?;
        launched_service(lab).context("a socket whose launched service runs")?;
        service_of_the_host(lab).context("a socket whose service is the host's")?;
        path(lab).context("a path")?;
        loaded(lab).context("a loaded service that runs")
    });
}

/// The socket stays open while its service is updated.
fn service_of_a_socket(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    write(
        one,
        &[("web.socket", &socket(7010, "")), ("web.service", SLEEPER)],
    )?;
    fleetctl(one, "start --wait web.socket web.service")?.ok()?;
    let run = |host: &Host| host.systemctl_show("web.socket", "InvocationID");
    let (opened, before) = (each(lab, run)?, main_pids(lab, "web.service")?);
    write(
        one,
        &[("web.service", &SLEEPER.replace("infinity", "4711"))],
    )?;
    fleetctl(one, "start --wait --replace web.service")?.ok()?;
    let after = main_pids(lab, "web.service")?;
    ensure!(before.iter().zip(&after).all(|(old, new)| old != new));
    ensure!(each(lab, run)? == opened, "the socket was restarted");
    connect(lab, 7010)?;
    destroy_all(lab)
}

/// It holds the old address, and makes room for the new one.
fn launched_service(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    write(
        one,
        &[("web.socket", &socket(7011, "")), ("web.service", SLEEPER)],
    )?;
    fleetctl(one, "start --wait web.socket web.service")?.ok()?;
    write(one, &[("web.socket", &socket(7012, ""))])?;
    fleetctl(one, "start --wait --replace web.socket")?.ok()?;
    connect(lab, 7012)?;
    await_on(lab, "web.service", "active", &[1, 2, 3])?;
    ensure!(connect(lab, 7011).is_err(), "the old address answers");
    destroy_all(lab)
}

/// It is left alone, so the update fails, and the socket listens as before.
fn service_of_the_host(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let theirs = "[Service]\nExecStart=/bin/sleep infinity\n";
    for host in lab.hosts() {
        host.write_file("/etc/systemd/system/theirs.service", theirs)?;
        host.sh("systemctl daemon-reload")?.ok()?;
    }
    let ours = |port| socket(port, "Service=theirs.service\n");
    write(one, &[("ours.socket", &ours(7013))])?;
    fleetctl(one, "start --wait ours.socket")?.ok()?;
    connect(lab, 7013)?;
    let before = main_pids(lab, "theirs.service")?;
    write(one, &[("ours.socket", &ours(7014))])?;
    let refused = fleetctl(one, "start --wait --replace ours.socket")?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("theirs.service"),
        "{refused:?}"
    );
    ensure!(
        main_pids(lab, "theirs.service")? == before,
        "it was touched"
    );
    lab.wait_until(SOON, "the sockets listen as before", || {
        await_on(lab, "ours.socket", "active", &[1, 2, 3])?;
        connect(lab, 7013).map(|()| true)
    })?;
    destroy_all(lab)?;
    ensure!(
        main_pids(lab, "theirs.service")? == before,
        "it was touched"
    );
    each(lab, |host| host.sh("systemctl stop theirs.service")?.ok()).map(drop)
}

/// It looks at another place, and the service that it started runs on.
fn path(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let path = |place: &str| format!("[Path]\nPathExists={place}\n{GLOBAL}");
    write(
        one,
        &[("drop.path", &path("/run/a")), ("drop.service", SLEEPER)],
    )?;
    fleetctl(one, "load drop.service")?.ok()?;
    fleetctl(one, "start --wait drop.path")?.ok()?;
    each(lab, |host| host.write_file("/run/a", ""))?;
    await_on(lab, "drop.service", "active", &[1, 2, 3])?;
    let before = main_pids(lab, "drop.service")?;
    write(one, &[("drop.path", &path("/run/b"))])?;
    fleetctl(one, "start --wait --replace drop.path")?.ok()?;
    ensure!(main_pids(lab, "drop.service")? == before, "it was touched");
    each(lab, |host| {
        host.sh("touch /run/b; systemctl kill drop.service")?.ok()
    })?;
    lab.wait_until(SOON, "the path starts it again", || {
        let now = each(lab, |host| host.main_pid("drop.service"))?;
        Ok(now
            .iter()
            .zip(&before)
            .all(|(new, old)| *new != 0 && new != old))
    })?;

    // A place that systemd does not take leaves the path at work.
    write(one, &[("drop.path", &path("relative"))])?;
    let refused = fleetctl(one, "start --wait --replace drop.path")?;
    ensure!(refused.code == 1, "{refused:?}");
    each(lab, |host| host.sh("systemctl stop drop.service")?.ok())?;
    await_on(lab, "drop.path", "active", &[1, 2, 3])?;
    await_on(lab, "drop.service", "active", &[1, 2, 3])?;
    destroy_all(lab)
}

/// It runs on with its older file, and does not count as up to date.
fn loaded(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    write(one, &[("a.service", SLEEPER)])?;
    fleetctl(one, "load a.service")?.ok()?;
    lab.wait_until(SOON, "each host can start it", || {
        each(lab, |host| host.sh("systemctl start a.service")?.ok()).map(|_| true)
    })?;
    let before = main_pids(lab, "a.service")?;
    write(one, &[("a.service", &SLEEPER.replace("infinity", "4711"))])?;
    fleetctl(one, "load --replace a.service")?.ok()?;
    let counts = |expected: &str| {
        let what = format!("it counts as up to date on {expected} hosts");
        lab.wait_until(SOON, &what, || {
            let listed = fleetctl(one, "list-globals --no-legend --fields=unit,up-to-date")?;
            let listed = listed.ok()?;
            let words: Vec<&str> = listed.split_whitespace().collect();
            ensure!(words == ["a.service", expected], "{listed}");
            let files = each(lab, |host| host.read_file("/run/fleet/units/a.service"))?;
            Ok(files.iter().all(|file| file.contains("4711")))
        })
    };
    counts("0")?;
    ensure!(main_pids(lab, "a.service")? == before, "it was restarted");
    each(lab, |host| host.sh("systemctl restart a.service")?.ok())?;
    counts("3")?;
    destroy_all(lab)
}
