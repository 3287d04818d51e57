//! Units of every kind that a fault could affect, and the traces by which a host shows that one was
//! affected.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{FleetConf, Host, Lab};

/// Far longer than anything here takes. Machines that run tests are busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const GLOBAL: &str = "[X-Fleet]\nGlobal=true\n";

/// Units that write a line on disk for each run, which survives a reboot.
const UNITS: &[(&str, &str)] = &[
    (
        "long.service",
        "[Service]\nExecStart=/bin/sh -c 'echo ran >> /srv/long; exec sleep infinity'\n",
    ),
    (
        "once.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >> /srv/once'\n",
    ),
    (
        "stays.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo ran >> /srv/stays'\n",
    ),
    (
        "bad.service",
        "[Service]\nExecStart=/bin/sh -c 'echo ran >> /srv/bad; exit 3'\n",
    ),
    (
        "tick.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >> /srv/tick'\n",
    ),
    ("tick.timer", "[Timer]\nOnActiveSec=1\nAccuracySec=1ms\n"),
];

/// Returns the configuration that the tests of faults share: leases that end soon.
pub(crate) fn conf(lab: &Lab, host: &Host) -> FleetConf {
    lab.fleet_conf()
        .metadata(&format!("host={}", host.name()))
        .line("agent_ttl=3s")
}

/// Installs fleet on all hosts, starts all kinds of units, and returns the traces once everything
/// is at rest.
pub(crate) fn start(lab: &Lab) -> Result<Vec<String>> {
    lab.install_fleet(|host| conf(lab, host))?;
    let first = lab.host(1);
    let names: Vec<&str> = UNITS.iter().map(|(name, _)| *name).collect();
    for (name, content) in UNITS {
        write(first, name, content)?;
    }
    let (timer, launched): (Vec<&str>, _) = names.iter().partition(|name| name.starts_with("tick"));
    lab.wait_until(SOON, "fleet answers", || {
        Ok(first.fleetctl(&["list-units"])?.code == 0)
    })?;
    first
        .sh(&format!(
            "cd /root; fleetctl load {0}; fleetctl start {1} tick.timer",
            timer.join(" "),
            launched.join(" ")
        ))?
        .ok()?;
    at_rest(lab)?;
    traces(lab)
}

/// Writes a unit file in /root, with `Global=true`.
pub(crate) fn write(host: &Host, name: &str, content: &str) -> Result<()> {
    host.write_file(&format!("/root/{name}"), format!("{content}\n{GLOBAL}"))
}

/// Starts a unit by that name which sleeps, as a person on `host` would.
pub(crate) fn launch(host: &Host, name: &str) -> Result<()> {
    write(host, name, "[Service]\nExecStart=/bin/sleep infinity\n")?;
    host.sh(&format!("cd /root; fleetctl start {name}"))?
        .ok()
        .map(drop)
}

/// Waits until the unit is active on all these hosts.
pub(crate) fn active<'a>(
    lab: &Lab,
    unit: &str,
    hosts: impl IntoIterator<Item = &'a Host> + Clone,
) -> Result<()> {
    lab.wait_until(SOON, &format!("{unit} is active"), || {
        Ok(hosts.clone().into_iter().all(|host| host.is_active(unit)))
    })
}

/// Waits until every unit of [`start`] has run or runs on every host.
pub(crate) fn at_rest(lab: &Lab) -> Result<()> {
    lab.wait_until(SOON, "all kinds of units have run on every host", || {
        Ok(lab.hosts().iter().all(|host| {
            let ran = ["once", "stays", "bad", "tick"]
                .iter()
                .all(|name| host.read_file(&format!("/srv/{name}")).is_ok());
            ran && ["long.service", "stays.service", "tick.timer"]
                .iter()
                .all(|unit| host.is_active(unit))
                && host
                    .systemctl_show("bad.service", "ActiveState")
                    .is_ok_and(|state| state == "failed")
        }))
    })
}

/// Returns the problems in a cluster status, without those that a test causes on purpose: the unit
/// that fails, and units stopped by hand.
pub(crate) fn problems(status: &str) -> Vec<&str> {
    let named = status
        .lines()
        .skip_while(|line| !line.starts_with("Problems:"));
    named
        .skip(1)
        .filter(|line| !line.contains("bad.service: failed (exit-code)"))
        .filter(|line| !line.contains("it was stopped by hand"))
        .filter(|line| !line.is_empty())
        .collect()
}

/// Returns everything on a host that changes when one of the units is restarted or reloaded.
pub(crate) fn trace(host: &Host) -> Result<String> {
    let show = "cd /srv; wc -l long once stays bad tick; \
        systemctl show --property=Id,ActiveState,MainPID,NRestarts,InvocationID,ActiveEnterTimestampMonotonic \
        long.service stays.service bad.service tick.timer";
    host.sh(show)?.ok()
}

/// Returns the traces of all hosts.
pub(crate) fn traces(lab: &Lab) -> Result<Vec<String>> {
    lab.hosts().iter().map(trace).collect()
}

/// Returns an error if any unit of [`start`] was affected on any host since `before`.
pub(crate) fn untouched(lab: &Lab, before: &[String], what: &str) -> Result<()> {
    for (host, before) in lab.hosts().iter().zip(before) {
        let now = trace(host)?;
        ensure!(
            now == *before,
            "{what} touched units of {}:\n{before}\nis now\n{now}",
            host.name()
        );
    }
    Ok(())
}

/// Returns how often each counting unit ran on a host.
pub(crate) fn runs(host: &Host) -> Result<BTreeMap<&'static str, usize>> {
    let counted = ["long", "once", "stays", "bad"].into_iter();
    counted
        .map(|name| {
            Ok((
                name,
                host.read_file(&format!("/srv/{name}"))?.lines().count(),
            ))
        })
        .collect()
}

/// Checks that fleet works end to end: a new unit reaches every host, and is removed again.
pub(crate) fn works(lab: &Lab, name: &str) -> Result<()> {
    let first = lab.host(1);
    lab.wait_until(SOON, "a unit can be started", || {
        launch(first, name).map(|()| true)
    })?;
    active(lab, name, lab.hosts())?;
    first.fleetctl(&["destroy", name])?.ok()?;
    lab.wait_until(SOON, &format!("{name} is gone again"), || {
        Ok(lab.hosts().iter().all(|host| {
            host.systemctl_show(name, "LoadState")
                .is_ok_and(|load| load == "not-found")
        }))
    })
}

/// Returns fleetd's pid on a host.
pub(crate) fn fleetd(host: &Host) -> Result<u32> {
    host.main_pid("fleet.service")
}

/// Waits until fleetd runs there with another pid, and reports that it is ready.
pub(crate) fn fleetd_again(lab: &Lab, host: &Host, before: u32) -> Result<()> {
    lab.wait_until(
        SOON,
        &format!("fleetd of {} runs again", host.name()),
        || Ok(host.is_active("fleet.service") && ![0, before].contains(&fleetd(host)?)),
    )
}

/// Returns the number of the leader's host, as `speaker` reports it.
pub(crate) fn leader(lab: &Lab, speaker: &Host) -> Result<usize> {
    let status = speaker.fleetctl(&["status"])?;
    ensure!([0, 3].contains(&status.code), "{status:?}");
    let status = status.stdout;
    let host = lab
        .hosts()
        .iter()
        .find(|host| status.contains(&format!("Leader: {}", host.machine_id())));
    host.map(Host::number)
        .with_context(|| format!("no host leads:\n{status}"))
}

/// Returns the line of `systemctl status fleet.service` with fleetd's own status.
pub(crate) fn status_text(host: &Host) -> Result<String> {
    host.systemctl_show("fleet.service", "StatusText")
}

/// Returns the lines that fleetd wrote to its journal.
pub(crate) fn fleet_journal(host: &Host) -> Result<String> {
    host.sh("journalctl --unit=fleet.service --no-pager --output=cat")?
        .ok()
}
