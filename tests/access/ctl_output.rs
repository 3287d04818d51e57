//! Shows what fleetctl prints for scripts and people on real hosts: documents, names, exit codes,
//! waits, watches.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, binaries};
use serde_json::{Value, json};

use crate::support::looking::{SOON, gone_everywhere, refused, runs_everywhere, sleeper};

const SLOW: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 1\n\n[X-Fleet]\nGlobal=true\n";
const BROKEN: &str = "[Service]\nExecStart=/bin/false\n\n[X-Fleet]\nGlobal=true\n";

fn ready(lab: &Lab) -> Result<&Host> {
    lab.install_fleet(|host| lab.fleet_conf().metadata(&format!("host={}", host.name())))?;
    let host = lab.host(1);
    lab.wait_until(SOON, "both machines are listed", || {
        let names = host.fleetctl(&["list-machines", "-o", "name"])?.ok()?;
        Ok(names.lines().count() == lab.hosts().len())
    })?;
    host.write_file("/root/sleeper.service", sleeper(1001))?;
    host.write_file("/root/slow.service", SLOW)?;
    host.write_file("/root/broken.service", BROKEN)?;
    Ok(host)
}

fn document(host: &Host, arguments: &[&str]) -> Result<Value> {
    let text = host.fleetctl(arguments)?.stdout;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} is no JSON: {text}"))
}

#[test]
fn documents_say_what_the_hosts_say() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let host = ready(lab)?;
        host.fleetctl(&["start", "--wait", "/root/sleeper.service"])?
            .ok()?;

        let units = document(host, &["list-units", "-o", "json"])?;
        ensure!(units["apiVersion"] == "fleetctl/v1" && units["kind"] == "UnitStateList");
        for host in lab.hosts() {
            let rows = units["items"].as_array().context("items")?;
            let row = rows.iter().find(|row| row["machine"] == host.machine_id());
            let row = row.context("a row for each host")?;
            for (key, property) in [("active", "ActiveState"), ("sub", "SubState")] {
                ensure!(row[key] == host.systemctl_show("sleeper.service", property)?);
            }
            ensure!(row["revision"] == 1 && row["restarts"] == 0 && row["result"] == "success");
            ensure!(
                row["since"]
                    .as_str()
                    .is_some_and(|since| since.starts_with("20"))
            );
        }
        let machines = document(host, &["list-machines", "-o", "json"])?;
        let version = host.fleetctl(&["version"])?.ok()?;
        let mut hosts: Vec<&Host> = lab.hosts().iter().collect();
        hosts.sort_by_key(|host| host.machine_id());
        let machines = machines["items"].as_array().context("items")?;
        for (machine, host) in machines.iter().zip(hosts) {
            ensure!(machine["id"] == host.machine_id());
            ensure!(machine["metadata"] == json!({"host": host.name()}));
            let there = machine["version"].as_str().context("a version")?;
            ensure!(version.trim().ends_with(&format!("v{there}")), "{there}");
        }
        // YAML and JSON have the same content. An independent reader checks this, if the build
        // machine has one.
        for listing in ["list-units", "list-unit-files", "list-machines", "status"] {
            let yaml = host.fleetctl(&[listing, "-o", "yaml"])?.ok()?;
            let json = document(host, &[listing, "-o", "json"])?;
            if let Some(read) = yaml_as_json(&yaml)? {
                ensure!(without_revision(read) == without_revision(json), "{yaml}");
            }
        }
        let wide = host.fleetctl(&["list-units", "-o", "wide"])?.ok()?;
        ensure!(
            wide.starts_with("UNIT\t\tMACHINE\t\t\tACTIVE\tSUB\tREVISION\tSINCE"),
            "{wide}"
        );
        let names = host.fleetctl(&["list-units", "-o", "name"])?.ok()?;
        ensure!(names == "sleeper.service\n", "{names}");
        Ok(())
    });
}

/// Removes the revision, because the registry may change between two requests.
fn without_revision(mut document: Value) -> Value {
    if let Some(fields) = document.as_object_mut() {
        fields.remove("registryRevision");
    }
    document
}

fn yaml_as_json(yaml: &str) -> Result<Option<Value>> {
    let script = "import sys\ntry:\n import json, yaml\nexcept ImportError:\n sys.exit(3)\n\
                  print(json.dumps(yaml.safe_load(sys.argv[1])))";
    match Command::new("python3").args(["-c", script, yaml]).output() {
        Ok(output) if output.status.success() => Ok(Some(serde_json::from_slice(&output.stdout)?)),
        Ok(output) if output.status.code() != Some(3) => {
            anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr))
        }
        _ => Ok(None),
    }
}

#[test]
fn exit_codes_tell_scripts_what_is_there() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let host = ready(lab)?;
        host.fleetctl(&["start", "--wait", "/root/sleeper.service"])?
            .ok()?;
        let code = |arguments: &[&str]| Ok::<_, anyhow::Error>(host.fleetctl(arguments)?.code);
        ensure!(code(&["status", "sleeper"])? == 0);
        lab.host(2)
            .exec(&["systemctl", "stop", "sleeper.service"])?
            .ok()?;
        lab.wait_until(
            SOON,
            "a unit that is stopped on one host is not active",
            || Ok(code(&["status", "-o", "json", "sleeper"])? == 3),
        )?;
        let sleper = host.fleetctl(&["status", "sleper"])?;
        refused(&sleper, 4, "Did you mean sleeper.service?")?;
        refused(
            &host.fleetctl(&["cat", "sleper"])?,
            1,
            "did you mean sleeper.service?",
        )?;
        ensure!(code(&["stop", "nosuch"])? == 0 && code(&["destroy", "nosuch"])? == 0);
        ensure!(code(&["list-units", "--no-legend=perhaps"])? == 2);
        ensure!(code(&["list-units", "--no-legend=true", "--full=false"])? == 0);

        // `head` ends before everything is written. That gives no message and no failure.
        let piped = host.exec(&[
            "bash",
            "-c",
            "set -o pipefail; for n in $(seq 20); do fleetctl list-units | head -1; done",
        ])?;
        ensure!(piped.code == 0 && piped.stderr.is_empty(), "{piped:?}");
        Ok(())
    });
}

#[test]
fn waiting_ends_when_the_hosts_are_there() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let host = ready(lab)?;
        host.fleetctl(&["start", "/root/slow.service", "/root/sleeper.service"])?
            .ok()?;
        host.fleetctl(&["wait", "slow", "sleeper"])?.ok()?;
        for host in lab.hosts() {
            ensure!(host.is_active("slow.service") && host.is_active("sleeper.service"));
        }
        host.fleetctl(&["wait", "--for=active", "--timeout=10s", "s*"])?
            .ok()?;

        host.fleetctl(&["start", "/root/broken.service"])?.ok()?;
        let broken = host.fleetctl(&["wait", "broken"])?;
        refused(&broken, 1, "failed (failed), result exit-code")?;
        let here = host.fleetctl(&["wait", "--for=gone", "--timeout=300ms", "sleeper"])?;
        refused(&here, 1, "sleeper.service: not gone after 300ms")?;
        refused(
            &host.fleetctl(&["wait", "nosuch"])?,
            4,
            "nosuch.service is not in the registry",
        )?;

        host.fleetctl(&["destroy", "sleeper"])?.ok()?;
        host.fleetctl(&["wait", "--for=gone", "sleeper", "nosuch"])?
            .ok()?;
        for host in lab.hosts() {
            ensure!(!host.path("/run/fleet/units/sleeper.service").exists());
        }
        gone_everywhere(lab, "sleeper.service")
    });
}

/// A running `fleetctl ARGUMENTS` at a host's socket, and the lines that it prints.
struct Watched {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Watched {
    fn start(host: &Host, arguments: &[&str]) -> Result<Self> {
        let socket = host.path("/run/fleet.sock");
        let mut process = Command::new(binaries()?.join("fleetctl"))
            .arg(format!("--endpoint=unix://{}", socket.display()))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(process.stdout.take().context("piped")?);
        let (told, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| told.send(line))
        });
        Ok(Self { process, lines })
    }

    fn until(&self, wanted: &str) -> Result<()> {
        loop {
            let line = self.lines.recv_timeout(SOON);
            if line
                .with_context(|| format!("it never told `{wanted}`"))?
                .contains(wanted)
            {
                return Ok(());
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_watcher_sees_a_unit_fail_and_come_back() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let host = ready(lab)?;
        host.fleetctl(&["start", "--wait", "/root/sleeper.service"])?
            .ok()?;
        runs_everywhere(lab, "sleeper.service", 1001)?;
        let listing = Watched::start(host, &["list-units", "--watch"])?;
        let status = Watched::start(host, &["status", "--watch", "sleeper"])?;
        listing.until("active\trunning")?;
        status.until("active (running)")?;
        let other = lab.host(2);
        other
            .exec(&["systemctl", "kill", "--signal=KILL", "sleeper.service"])?
            .ok()?;
        listing.until("failed\tfailed")?;
        status.until("failed (failed), result signal")?;
        // The watcher survives a restart of its fleetd.
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        other
            .exec(&["systemctl", "start", "sleeper.service"])?
            .ok()?;
        status.until(&format!("{}...", &other.machine_id()[..8]))?;
        lab.wait_until(SOON, "it is active again", || {
            Ok(host.fleetctl(&["status", "sleeper"])?.code == 0)
        })
    });
}
