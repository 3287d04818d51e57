//! Measures fleet's cost while nothing changes, and its time to recover.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_core::daemonset::convert;
use lab::{FleetConf, Host, Lab, Metrics, wait_until};

use crate::figure::{self, Samples};

/// The number of running units.
const UNITS: usize = 100;

/// The duration of the idle measurement. It includes two keep-alives of each machine; more would
/// only take longer.
const IDLE: Duration = Duration::from_secs(60);

/// The limit for every wait.
const LIMIT: Duration = Duration::from_secs(30);

const FLEET_CONF: &str = "/etc/fleet/fleet.conf";

const SOCKET: &str = "/etc/systemd/system/fleet.socket.d/absent.conf";

/// A name server that accepts every question and never responds.
const SWALLOWS: [(&str, &str); 2] = [
    (
        "/etc/systemd/system/swallow.socket",
        "[Socket]\nListenDatagram=127.0.0.53:53\n[Install]\nWantedBy=sockets.target\n",
    ),
    (
        "/etc/systemd/system/swallow.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    ),
];

const UNIT: &str = "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nGlobal=true\n";

/// Starts the units that keep running.
pub(crate) fn populate(lab: &Lab) -> Result<()> {
    let first = lab.host(1);
    for n in 0..UNITS {
        first.write_file(&format!("/root/stand/stand{n}.service"), UNIT)?;
    }
    first
        .sh("cd /root/stand && fleetctl start --wait *")?
        .ok()
        .map(drop)
}

/// A manifest of the usual size.
const MANIFEST: &str =
    include_str!("../../../../crates/core/src/daemonset/golden/node-exporter.yaml");

/// Measures fleetctl by itself, from the start of its process to the end. It runs beside the host
/// on the host's socket, because entering the host takes longer.
pub(crate) fn processes(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let fleetctl = lab::binaries()?.join("fleetctl");
    let socket = lab.host(1).path("/run/fleet.sock");
    let endpoint = format!("--endpoint=unix://{}", socket.display());
    let folder = tempfile::tempdir()?;
    let manifest = folder.path().join("node-exporter.yaml");
    fs::write(&manifest, MANIFEST)?;
    let manifest = manifest.display().to_string();
    let converted = convert(MANIFEST.as_bytes(), "node-exporter.yaml");
    let units = converted.units.iter();
    let converted: usize = units.map(|(_, unit)| unit.to_text().lines().count()).sum();
    for (figure, command, lines) in [
        (figure::VERSION, &["version"][..], 1),
        (figure::IMPORT, &["import", &manifest], converted),
        (
            figure::LIST_UNITS,
            &["list-units"],
            1 + UNITS * lab.hosts().len(),
        ),
        (figure::LIST_UNIT_FILES, &["list-unit-files"], 1 + UNITS),
        (
            figure::LIST_MACHINES,
            &["list-machines"],
            1 + lab.hosts().len(),
        ),
    ] {
        let begun = Instant::now();
        let output = Command::new(&fleetctl)
            .arg(&endpoint)
            .args(command)
            .output()?;
        samples.add(figure, begun.elapsed().as_secs_f64() * 1e3);
        let shown = String::from_utf8(output.stdout)?;
        ensure!(
            output.status.success() && shown.lines().count() == lines,
            "{command:?}: {shown}"
        );
    }
    Ok(())
}

/// Measures a minute without any change.
pub(crate) fn idle(lab: &Lab, samples: &mut Samples) -> Result<()> {
    // Wait for the last reports of a start, and their effects.
    thread::sleep(Duration::from_secs(5));
    let before = (usage(lab)?, lab.member(1).metrics()?);
    let begun = Instant::now();
    thread::sleep(IDLE);
    let after = (usage(lab)?, lab.member(1).metrics()?);
    let seconds = begun.elapsed().as_secs_f64();

    for (before, after) in before.0.iter().zip(&after.0) {
        samples.add(figure::RSS, after.rss);
        samples.add(figure::PSS, after.pss);
        samples.add(
            figure::CPU,
            (after.seconds - before.seconds) / seconds * 100.0,
        );
        samples.add(
            figure::SWITCHES,
            (after.switches - before.switches) / seconds,
        );
    }
    let rate = |count: fn(&Metrics) -> f64| (count(&after.1) - count(&before.1)) / seconds;
    samples.add(figure::KEEP_ALIVES, rate(keep_alives));
    samples.add(
        figure::OTHER_REQUESTS,
        rate(|metrics| metrics.sum("grpc_server_msg_received_total") - keep_alives(metrics)),
    );
    samples.add(
        figure::EVENTS,
        rate(|metrics| metrics.sum("etcd_debugging_mvcc_events_total")),
    );
    samples.add(
        figure::RAFT,
        rate(|metrics| metrics.sum("etcd_server_proposals_committed_total")),
    );
    Ok(())
}

fn keep_alives(metrics: &Metrics) -> f64 {
    let received = "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\"";
    metrics
        .0
        .iter()
        .filter(|(name, _)| name.starts_with(received))
        .map(|(_, count)| count)
        .sum()
}

/// The resources used by one fleetd.
pub(crate) struct Usage {
    pub(crate) rss: f64,
    pss: f64,
    pub(crate) seconds: f64,
    switches: f64,
}

fn usage(lab: &Lab) -> Result<Vec<Usage>> {
    lab.hosts().iter().map(usage_of).collect()
}

pub(crate) fn usage_of(host: &Host) -> Result<Usage> {
    let pid = host.main_pid("fleet.service")?;
    let read = |file: &str| {
        let path = host.path(&format!("/proc/{pid}/{file}"));
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let memory = read("smaps_rollup")?;
    let (mut seconds, mut switches) = (0.0, 0.0);
    for task in fs::read_dir(host.path(&format!("/proc/{pid}/task")))? {
        let task = task?.path();
        // Nanoseconds on a processor. `stat` counts in hundredths of a second, more than an idle
        // minute takes.
        let spent = fs::read_to_string(task.join("schedstat"))?;
        seconds += spent.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9;
        switches += field(
            &fs::read_to_string(task.join("status"))?,
            "voluntary_ctxt_switches:",
        )?;
    }
    Ok(Usage {
        rss: field(&memory, "Rss:")? / 1024.0,
        pss: field(&memory, "Pss:")? / 1024.0,
        seconds,
        switches,
    })
}

fn field(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

/// Measures a host that loses power and returns, from the start of its fleetd until its last unit
/// is active. The host's systemd records that time.
pub(crate) fn reboot(lab: &Lab, samples: &mut Samples) -> Result<()> {
    samples.add(figure::REBOOT, until_all_run(lab, lab.host(3))?);
    Ok(())
}

/// Measures reboots in turns: with everything reachable, and with dead name servers, no network and
/// a missing API address.
pub(crate) fn dark_reboots(lab: &Lab, rounds: usize, samples: &mut Samples) -> Result<()> {
    let host = lab.host(3);
    for (path, content) in SWALLOWS {
        host.write_file(path, content)?;
    }
    for _ in 0..rounds {
        let bright = until_all_run(lab, host)?;
        host.write_file("/etc/resolv.conf", "nameserver 127.0.0.53\n")?;
        let named = ["a", "b", "c"].map(|name| format!("http://{name}.example:2379"));
        host.write_file(FLEET_CONF, FleetConf::new(&named).to_string())?;
        host.write_file(SOCKET, "[Socket]\nListenStream=10.97.7.7:49153\n")?;
        host.sh("systemctl enable --quiet swallow.socket")?.ok()?;
        host.partition()?;
        let dark = until_all_run(lab, host)?;
        samples.add(figure::DARK, dark);
        samples.add(figure::DARK_DELAY, dark - bright);
        host.sh(&format!(
            "systemctl disable --quiet swallow.socket; rm {SOCKET}"
        ))?
        .ok()?;
        host.write_file(FLEET_CONF, lab.fleet_conf().to_string())?;
        host.heal()?;
    }
    until_all_run(lab, host).map(drop)
}

/// Cuts the power of a host. Returns the seconds from the start of fleetd until all units run.
fn until_all_run(lab: &Lab, host: &Host) -> Result<f64> {
    host.power_on()?;
    lab.wait_until(LIMIT, "all units run after a reboot", || {
        let listed = host.sh("systemctl list-units --no-legend --state=active 'stand*' | wc -l")?;
        Ok(listed.ok()?.trim() == UNITS.to_string())
    })?;
    let micros = |unit: &str, property: &str| -> Result<Vec<f64>> {
        let property = format!("--property={property}");
        let shown = host
            .exec(&["systemctl", "show", "--value", &property, unit])?
            .ok()?;
        shown
            .split_whitespace()
            .map(|line| Ok(line.parse()?))
            .collect()
    };
    let start = micros("fleet.service", "ExecMainStartTimestampMonotonic")?[0];
    let units = micros("stand*", "ActiveEnterTimestampMonotonic")?;
    ensure!(units.len() == UNITS, "{} units have a time", units.len());
    let last = units.into_iter().fold(start, f64::max);
    Ok((last - start) / 1e6)
}

/// Changes only a comment in all units.
pub(crate) fn comments(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let reloads = || -> Result<f64> {
        let mut sum = 0.0;
        for host in lab.hosts() {
            let count = host.sh("journalctl -o cat _PID=1 | grep -c '^Reloading' || true")?;
            sum += count.ok()?.trim().parse::<f64>()?;
        }
        Ok(sum)
    };
    let before = reloads()?;
    let first = lab.host(1);
    first
        .sh("cd /root/stand && sed -i '1i # changed' * && fleetctl start --replace --wait *")?
        .ok()?;
    samples.add(figure::COMMENTS, reloads()? - before);
    Ok(())
}

/// Kills the leader's process. systemd restarts it after two seconds, and any engine may lead next.
pub(crate) fn leader(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let old = claim(lab)?;
    let leader = lab
        .hosts()
        .iter()
        .find(|host| old.contains(&host.machine_id()));
    let leader = leader.with_context(|| format!("the leader is none of the hosts: {old}"))?;
    let begun = Instant::now();
    leader
        .exec(&["systemctl", "kill", "--signal=KILL", "fleet.service"])?
        .ok()?;
    wait_until(LIMIT, "there is a new claim", || {
        let new = claim(lab)?;
        Ok(!new.is_empty() && new != old)
    })?;
    samples.add(figure::LEADER, begun.elapsed().as_secs_f64());
    wait_until(LIMIT, "fleetd is back", || {
        Ok(leader.is_active("fleet.service"))
    })
}

/// Returns the claim's key, value and creation revision; empty without a leader.
fn claim(lab: &Lab) -> Result<String> {
    let shown = lab
        .member(1)
        .etcdctl(&["get", "/_coreos.com/fleet/leader", "--write-out=fields"])?
        .ok()?;
    let lines = shown
        .lines()
        .filter(|line| line.starts_with("\"CreateRevision") || line.starts_with("\"Value"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
