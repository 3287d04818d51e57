//! Shows a machine's reports on its units over time, and that a drained machine runs nothing. Both
//! are read from the registry and from the hosts themselves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};
use serde_json::Value;

/// Far longer than anything here takes. A busy machine is slower in everything.
const SOON: Duration = Duration::from_secs(30);

/// The default prefix of fleetd's keys.
const PREFIX: &str = "/_coreos.com/fleet/";

fn launch(host: &Host, name: &str, service: &str, fleet: &str) -> Result<()> {
    let content = format!("[Service]\n{service}\n[X-Fleet]\nGlobal=true\n{fleet}\n");
    host.write_file(&format!("/root/{name}"), content)?;
    host.sh(&format!(
        "cd /root && fleetctl start --no-block --replace {name}"
    ))?
    .ok()
    .map(drop)
}

fn value(lab: &Lab, key: &str) -> Result<Value> {
    let key = format!("{PREFIX}{key}");
    let get = ["get", "--print-value-only", &key];
    let value = lab.member(1).etcdctl(&get)?.ok()?;
    serde_json::from_str(&value).with_context(|| format!("{key} is not there yet"))
}

/// Returns the machine's report on the unit.
fn report(lab: &Lab, host: &Host, name: &str) -> Result<Value> {
    let key = format!("reports/{}", host.machine_id());
    let changes = value(lab, &key)?;
    let is_gone = changes["gone"]
        .as_array()
        .is_some_and(|gone| gone.iter().any(|it| it == name));
    let there = &changes["units"][name];
    if changes["base"].is_null() || !there.is_null() || is_gone {
        return Ok(there.clone());
    }
    let base = value(lab, &format!("{key}/base"))?;
    Ok(base["units"][name].clone())
}

/// Returns the machine's present session.
fn session(lab: &Lab, host: &Host) -> Result<Value> {
    let machine = value(lab, &format!("machines/{}", host.machine_id()))?;
    Ok(machine["session"].clone())
}

/// Returns how long the unit has been active, by the host's clock.
fn active_for(host: &Host, name: &str) -> Result<Duration> {
    let since: u64 = host
        .systemctl_show(name, "ActiveEnterTimestampMonotonic")?
        .parse()?;
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let now: f64 = uptime.split(' ').next().context("a number")?.parse()?;
    Ok(Duration::from_secs_f64(now).saturating_sub(Duration::from_micros(since)))
}

#[test]
fn unit_is_available_after_min_ready_sec_or_says_why_not() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let host = lab.host(1);
        launch(
            host,
            "steady.service",
            "ExecStart=/bin/sleep 1000",
            "MinReadySec=4",
        )?;
        let crash = "ExecStart=/bin/sh -c 'sleep 2; exit 3'\nRestart=always\nRestartSec=100ms";
        launch(host, "crash.service", crash, "MinReadySec=500")?;
        launch(host, "fail.service", "ExecStart=/bin/false", "")?;
        launch(host, "stopped.service", "ExecStart=/bin/sleep 1000", "")?;
        launch(
            host,
            "once.service",
            "Type=oneshot\nExecStart=/bin/true",
            "",
        )?;
        launch(
            host,
            "notify.service",
            "Type=notify\nExecStart=/bin/sleep 1000",
            "",
        )?;
        let says = |name: &str, what: &str, expected: Value| {
            lab.wait_until(SOON, &format!("{name} says {what}={expected}"), || {
                let report = report(lab, host, name)?;
                ensure!(report[what] == expected, "{report}");
                Ok(true)
            })
        };
        says("steady.service", "available", true.into())?;
        let since = active_for(host, "steady.service")?;
        ensure!(since >= Duration::from_secs(4), "available after {since:?}");
        says("once.service", "available", true.into())?;
        says("stopped.service", "available", true.into())?;
        says("fail.service", "failed", "failed (exit-code)".into())?;
        lab.wait_until(SOON, "the loop of crashes is told", || {
            let report = report(lab, host, "crash.service")?;
            ensure!(report["available"] == false, "{report}");
            let failed = report["failed"].as_str().unwrap_or_default();
            Ok(failed.starts_with("systemd restarted it"))
        })?;
        // As far as systemd knows, it is still starting.
        let starts = report(lab, host, "notify.service")?;
        ensure!(
            starts["ready"] == false && starts["failed"].is_null(),
            "{starts}"
        );
        host.exec(&["systemctl", "stop", "stopped.service"])?.ok()?;
        says(
            "stopped.service",
            "failed",
            "it was stopped by hand or ended by itself, and is not started again: `fleetctl restart` starts it, or `systemctl start` on that machine".into(),
        )?;
        host.exec(&["systemctl", "start", "stopped.service"])?
            .ok()?;
        says("stopped.service", "available", true.into())?;

        // A restarted fleetd reads the time from systemd. No clock of the host matters.
        let pid = host.main_pid("steady.service")?;
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        says("steady.service", "available", true.into())?;
        assert_eq!(host.main_pid("steady.service")?, pid);
        Ok(())
    });
}

/// With a hundred units, each change would otherwise write all of them again.
#[test]
fn report_holds_changes_and_listings_show_all_of_it() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let host = lab.host(1);
        let key = format!("{PREFIX}reports/{}/base", host.machine_id());
        let etcdctl = |arguments: &[&str]| lab.member(1).etcdctl(arguments)?.ok();
        let all_run = |count: usize| {
            lab.wait_until(SOON, &format!("{count} units are listed as active"), || {
                let listed = host.sh("fleetctl list-units --no-legend --fields=unit,active")?;
                let listed = listed.ok()?;
                let active = listed.lines().filter(|line| line.ends_with("active"));
                let inactive = listed.lines().filter(|line| line.ends_with("inactive"));
                Ok(active.count() - inactive.count() == count)
            })
        };
        let all_available = |count: usize| {
            lab.wait_until(SOON, "all are available", || {
                for number in 1..=count {
                    let report = report(lab, host, &format!("u{number}.service"))?;
                    ensure!(report["available"] == true, "{number}: {report}");
                }
                Ok(true)
            })
        };
        let another = |number: usize| {
            let name = format!("u{number}.service");
            launch(host, &name, "ExecStart=/bin/sleep 1000", "")
        };
        (1..=12).try_for_each(another)?;
        all_run(12)?;
        all_available(12)?;
        let base = etcdctl(&["get", "--print-value-only", &key])?;
        ensure!(!base.is_empty(), "no base");
        another(13)?;
        all_run(13)?;
        let after = etcdctl(&["get", "--print-value-only", &key])?;
        ensure!(after == base, "written again for one unit: {after}");

        // A restarted fleetd begins with a new base without changes.
        all_available(13)?;
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        lab.wait_until(SOON, "a base of all thirteen", || {
            let base = value(lab, &format!("reports/{}/base", host.machine_id()))?;
            Ok(base["units"].as_object().is_some_and(|all| all.len() == 13))
        })?;
        all_run(13)?;

        // If the report is deleted, the next report has everything again.
        etcdctl(&["del", &key])?;
        let status = host.sh("fleetctl status")?.stdout;
        ensure!(status.contains("the base beside it"), "{status}");
        another(14)?;
        all_run(14)
    });
}

#[test]
fn drained_machine_runs_nothing_until_it_is_uncordoned() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let host = lab.host(1);
        let schedule = |scheduling: &str| {
            let key = format!("{PREFIX}metadata/{}", host.machine_id());
            let value = format!(r#"{{"format":1,"set":{{}},"scheduling":"{scheduling}"}}"#);
            lab.member(1)
                .etcdctl(&["put", &key, &value])?
                .ok()
                .map(drop)
        };
        let runs = |name: &str, expected: bool| {
            lab.wait_until(SOON, &format!("{name} runs: {expected}"), || {
                Ok(host.is_active(name) == expected)
            })
        };
        launch(host, "a.service", "ExecStart=/bin/sleep 1000", "")?;
        runs("a.service", true)?;
        schedule("cordoned")?;
        launch(host, "b.service", "ExecStart=/bin/sleep 1000", "")?;
        lab.wait_until(SOON, "b.service runs elsewhere", || {
            Ok(lab.host(2).is_active("b.service"))
        })?;
        ensure!(host.is_active("a.service") && !host.is_active("b.service"));
        schedule("drained")?;
        runs("a.service", false)?;
        let before = session(lab, host)?;
        host.reboot()?;
        lab.wait_until(SOON, "the machine is here again", || {
            Ok(session(lab, host)? != before)
        })?;
        ensure!(!host.is_active("a.service") && !host.is_active("b.service"));
        ensure!(lab.host(2).is_active("a.service"));
        schedule("normal")?;
        runs("a.service", true)?;
        runs("b.service", true)
    });
}
