//! What several behaviours look at: units on hosts, the keys of the registry, the problems that
//! people are told.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How long nothing must happen before nothing is going on: longer than reports are gathered, files
/// are spared and a registry is tried again.
const QUIET: Duration = Duration::from_millis(700);

/// A global unit that runs `sleep NUMBER`, so that its process tells the revision.
pub(crate) fn sleeper(number: u32) -> String {
    format!("[Service]\nExecStart=/bin/sleep {number}\n\n[X-Fleet]\nGlobal=true\n")
}

/// Waits until every host runs `sleep NUMBER` as this unit.
pub(crate) fn runs_everywhere(lab: &Lab, unit: &str, number: u32) -> Result<()> {
    lab.wait_until(
        SOON,
        &format!("{unit} runs sleep {number} everywhere"),
        || {
            let runs = |host: &Host| {
                Ok::<_, anyhow::Error>(
                    command(host, unit)?.as_deref() == Some(&*number.to_string()),
                )
            };
            lab.hosts()
                .iter()
                .try_fold(true, |all, host| Ok(all && runs(host)?))
        },
    )
}

/// What the unit's process sleeps for; none if there is none.
fn command(host: &Host, unit: &str) -> Result<Option<String>> {
    let line = host.sh(&format!(
        "pid=$(systemctl show --value --property=MainPID {unit}); [ $pid = 0 ] || tr '\\0' ' ' < /proc/$pid/cmdline"
    ))?;
    Ok(line
        .ok()?
        .trim()
        .strip_prefix("/bin/sleep ")
        .map(str::to_owned))
}

/// Waits until no host knows this unit, and no host has its file.
pub(crate) fn gone_everywhere(lab: &Lab, unit: &str) -> Result<()> {
    lab.wait_until(SOON, &format!("{unit} is gone everywhere"), || {
        lab.hosts().iter().try_fold(true, |all, host| {
            let unknown = host.systemctl_show(unit, "LoadState")? == "not-found";
            Ok(all && unknown && !host.path(&format!("/run/fleet/units/{unit}")).exists())
        })
    })
}

/// Installs fleet on the only host of a lab, and waits until it is listed.
pub(crate) fn listed(lab: &Lab) -> Result<()> {
    lab.install_fleet(|_| lab.fleet_conf())?;
    lab.wait_until(SOON, "the machine is listed", || {
        let machines = lab.host(1).fleetctl(&["list-machines", "--no-legend"])?;
        Ok(machines.stdout.contains(&lab.host(1).machine_id()[..8]))
    })
}

/// The main processes of these units on every host.
pub(crate) fn main_pids(lab: &Lab, units: &[&str]) -> Result<Vec<u32>> {
    let pairs = lab
        .hosts()
        .iter()
        .flat_map(|host| units.iter().map(move |unit| (host, unit)));
    pairs.map(|(host, unit)| host.main_pid(unit)).collect()
}

/// Waits until `fleetctl status` tells of a problem that contains this text, or no longer does.
pub(crate) fn told(lab: &Lab, text: &str, expected: bool) -> Result<()> {
    let host = lab.hosts().last().context("no host")?;
    let mut said = String::new();
    lab.wait_until(
        SOON,
        &format!("`fleetctl status` tells of `{text}`: {expected}"),
        || {
            let status = host.fleetctl(&["status"])?;
            // 3: there are problems, and they are what is looked for.
            ensure!([0, 3].contains(&status.code), "{status:?}");
            said = status.stdout;
            Ok(said.contains(text) == expected)
        },
    )
    .with_context(|| said)
}

/// The revision of the whole registry, once it has stood still: reports are written a moment after
/// the fact.
pub(crate) fn settled(lab: &Lab) -> Result<u64> {
    let (mut last, mut since) = (revision(lab)?, std::time::Instant::now());
    lab.wait_until(SOON, "nothing is written to the registry any more", || {
        let now = revision(lab)?;
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
        Ok(since.elapsed() >= QUIET)
    })?;
    Ok(last)
}

fn revision(lab: &Lab) -> Result<u64> {
    etcd_number(lab, "nothing", "/header/revision")?.context("etcd tells no revision")
}

/// How often a unit's record was written since it was made; none while there is none.
pub(crate) fn writes(lab: &Lab, unit: &str) -> Result<Option<u64>> {
    settled(lab)?;
    etcd_number(
        lab,
        &format!("/_coreos.com/fleet/units/{unit}"),
        "/kvs/0/version",
    )
}

/// The store revision that made a unit; none while there is none. One that was destroyed and made
/// again has another.
pub(crate) fn made_at(lab: &Lab, unit: &str) -> Result<Option<u64>> {
    etcd_number(
        lab,
        &format!("/_coreos.com/fleet/units/{unit}"),
        "/kvs/0/create_revision",
    )
}

fn etcd_number(lab: &Lab, key: &str, pointer: &str) -> Result<Option<u64>> {
    let answer = lab
        .member(1)
        .etcdctl(&["get", "--write-out=json", key])?
        .ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    Ok(answer.pointer(pointer).and_then(serde_json::Value::as_u64))
}

/// Checks that a command failed with this exit code, and said this on stderr.
pub(crate) fn refused(output: &lab::Output, code: i32, text: &str) -> Result<()> {
    ensure!(
        output.code == code && output.stderr.contains(text),
        "expected exit code {code} and `{text}`: {output:?}"
    );
    Ok(())
}
