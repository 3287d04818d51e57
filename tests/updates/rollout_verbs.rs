//! Shows the rollout commands as a person uses them on real hosts: plan, follow, pause, resume,
//! undo, restart, and take machines out.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{SOON, main_pids, runs_everywhere, settled, sleeper};

const UNIT: &str = "web.service";
const FILE: &str = "/root/web.service";

/// Returns a sleeper that takes so long to be available that each step of a rollout can be seen.
fn slowly(number: u32) -> String {
    sleeper(number) + "MinReadySec=3\n"
}

fn ready(lab: &Lab) -> Result<&Host> {
    lab.install_fleet(|host| lab.fleet_conf().metadata(&format!("host={}", host.name())))?;
    let host = lab.host(1);
    lab.wait_until(SOON, "all machines are listed", || {
        let names = host.fleetctl(&["list-machines", "-o", "name"])?.stdout;
        Ok(names.lines().count() == lab.hosts().len())
    })?;
    Ok(host)
}

/// Runs fleetctl, checks its exit code, and returns its output.
fn says(host: &Host, code: i32, arguments: &[&str]) -> Result<String> {
    let said = host.fleetctl(arguments)?;
    ensure!(said.code == code, "not exit {code}: {said:?}");
    Ok(said.stdout)
}

fn contains(text: &str, wanted: &[&str]) -> Result<()> {
    for wanted in wanted {
        ensure!(text.contains(wanted), "no `{wanted}` in:\n{text}");
    }
    Ok(())
}

#[test]
fn update_is_planned_followed_paused_undone_and_restarted() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let host = ready(lab)?;
        host.write_file(FILE, slowly(1000))?;
        says(host, 0, &["start", "--wait", FILE])?;
        runs_everywhere(lab, UNIT, 1000)?;
        looked_at(lab, host).context("before the update")?;

        says(host, 0, &["start", "--replace", FILE])?;
        says(host, 5, &["rollout", "status", UNIT])?;
        paused(lab, host).context("pause")?;
        says(host, 0, &["rollout", "resume", UNIT])?;
        let followed = says(host, 0, &["rollout", "status", "--watch", UNIT])?;
        contains(
            &followed,
            &["web.service: revision 2 is stable, available on 3 of 3 machines"],
        )?;
        runs_everywhere(lab, UNIT, 1001)?;

        says(host, 0, &["rollout", "undo", UNIT])?;
        says(host, 0, &["rollout", "status", "--watch", UNIT])?;
        runs_everywhere(lab, UNIT, 1000)?;
        let history = says(host, 0, &["rollout", "history", "--no-legend", UNIT])?;
        let states: Vec<&str> = history
            .split_whitespace()
            .filter(|word| ["superseded", "stable"].contains(word))
            .collect();
        ensure!(
            states == ["superseded", "superseded", "stable"],
            "{history}"
        );
        let first = says(host, 0, &["rollout", "history", "--revision=2", UNIT])?;
        ensure!(first == slowly(1001), "{first}");
        restarted(lab, host).context("restart")?;
        story(host).context("events")
    });
}

/// Checks that the plan shows what would happen, and nothing happens.
fn looked_at(lab: &Lab, host: &Host) -> Result<()> {
    let before = main_pids(lab, &[UNIT])?;
    let same = says(host, 0, &["plan", FILE])?;
    contains(&same, &["no change", "3 machines"])?;
    says(host, 0, &["diff", FILE])?;
    host.write_file(FILE, slowly(1001))?;
    let plan = says(host, 1, &["plan", FILE])?;
    contains(
        &plan,
        &[
            "web.service: update, with a restart: [Service] ExecStart= differs",
            "restart      3 machines",
            "1 machine at a time, in 3 turns: MaxUnavailable=10% of 3",
        ],
    )?;
    let diff = says(host, 1, &["diff", FILE])?;
    contains(
        &diff,
        &["-ExecStart=/bin/sleep 1000\n+ExecStart=/bin/sleep 1001\n"],
    )?;
    says(host, 3, &["plan", "/root/nosuch.service"])?;
    ensure!(
        main_pids(lab, &[UNIT])? == before,
        "something was restarted"
    );
    runs_everywhere(lab, UNIT, 1000)
}

/// Checks that a paused update stays where it is, even once its machine is available and the next
/// one could follow.
fn paused(lab: &Lab, host: &Host) -> Result<()> {
    contains(
        &says(host, 0, &["rollout", "pause", UNIT])?,
        &["web.service paused: revision 2 is on"],
    )?;
    let standing = || says(host, 6, &["rollout", "status", UNIT]);
    lab.wait_until(SOON, "one machine is done", || {
        Ok(standing()?.contains("  done          1  "))
    })?;
    let (pids, text) = (main_pids(lab, &[UNIT])?, standing()?);
    contains(
        &text,
        &["revision 2 is paused on 1 of 3", "  waiting       2  "],
    )?;
    settled(lab)?;
    ensure!(main_pids(lab, &[UNIT])? == pids, "it went on");
    ensure!(standing()? == text, "it went on: {text}");
    let shown = says(host, 0, &["status", "-n0", UNIT])?;
    let rollout = "Rollout: revision 2 paused, available on 1 of 3 machines: paused by";
    contains(&shown, &[rollout])?;
    let watched = says(host, 6, &["rollout", "status", "--watch", UNIT])?;
    ensure!(watched.lines().count() == 1, "{watched}");
    Ok(())
}

/// Checks that all main processes are new in the end, one host after the other.
fn restarted(lab: &Lab, host: &Host) -> Result<()> {
    let before = main_pids(lab, &[UNIT])?;
    contains(
        &says(host, 0, &["restart", UNIT])?,
        &["Triggered global unit web.service restart"],
    )?;
    let mut seen = BTreeSet::new();
    lab.wait_until(SOON, "every host has another process", || {
        let now = main_pids(lab, &[UNIT])?;
        let down = now.iter().filter(|pid| **pid == 0).count();
        ensure!(down <= 1, "{down} hosts are without it: {now:?}");
        let renewed = before.iter().zip(&now).filter(|(old, new)| old != new);
        seen.insert(renewed.count());
        Ok(seen.contains(&before.len()))
    })?;
    ensure!(seen.contains(&1) && seen.contains(&2), "at once: {seen:?}");
    says(host, 0, &["rollout", "status", "--watch", UNIT])?;
    runs_everywhere(lab, UNIT, 1000)
}

/// Checks that the leader's decisions are listed in their order.
fn story(host: &Host) -> Result<()> {
    let told = says(host, 0, &["events", "-o", "json", UNIT])?;
    let mut kinds = Vec::new();
    for line in told.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        kinds.push((
            event["revision"].as_u64().context("a revision")?,
            event["kind"].as_str().context("a kind")?.to_owned(),
        ));
    }
    for revision in [2, 3, 4] {
        let of = kinds.iter().filter(|(number, _)| *number == revision);
        let of: Vec<&str> = of.map(|(_, kind)| kind.as_str()).collect();
        let granted = of.iter().filter(|kind| **kind == "granted").count();
        ensure!(
            of.first() == Some(&"rollout-started") && of.last() == Some(&"promoted"),
            "revision {revision}: {told}"
        );
        ensure!(granted == 3, "revision {revision}: {told}");
    }
    let all = says(host, 0, &["events"])?;
    contains(&all, &[" leading "])
}

#[test]
fn machines_are_taken_out_and_given_back() {
    Lab::builder().hosts(3).etcd(1).test(|lab| {
        let host = ready(lab)?;
        labelled(lab, host).context("labels")?;
        host.write_file(FILE, sleeper(1000))?;
        says(host, 0, &["start", "--wait", FILE])?;
        runs_everywhere(lab, UNIT, 1000)?;
        cordoned(lab, host).context("cordon")?;
        drained(lab, host).context("drain")
    });
}

/// Checks that a unit behaves like a DaemonSet: it runs nowhere, metadata brings it to one machine,
/// and removes it again.
fn labelled(lab: &Lab, host: &Host) -> Result<()> {
    let unit = "ssd.service";
    let file = format!("/root/{unit}");
    host.write_file(&file, sleeper(1009) + "MachineMetadata=disk=ssd\n")?;
    says(host, 0, &["start", &file])?;
    let counts = |count: &str| {
        lab.wait_until(SOON, &format!("{unit} counts {count}"), || {
            let fields = "desired,current,ready,up-to-date,available,failed,deferred,metadata";
            let fields = format!("--fields={fields}");
            let row = says(host, 0, &["list-globals", "--no-legend", &fields])?;
            let cells: Vec<&str> = row.split_whitespace().collect();
            Ok(cells == [count, count, count, count, count, "0", "0", "disk=ssd"])
        })
    };
    counts("0")?;
    let labelled = lab.host(2);
    let id = labelled.machine_id();
    let explained = says(host, 0, &["explain", unit, "--machine", &id[..8]])?;
    contains(
        &explained,
        &[
            "no   metadata disk      it needs disk=ssd, and disk is not set here",
            &format!(
                "what would change it: fleetctl metadata {} disk=ssd",
                &id[..8]
            ),
        ],
    )?;
    says(host, 0, &["metadata", &id[..8], "disk=ssd"])?;
    counts("1")?;
    ensure!(labelled.is_active(unit) && !host.is_active(unit));
    let explained = says(host, 0, &["explain", unit])?;
    contains(
        &explained,
        &[
            &format!("ssd.service runs on {}", &id[..8]),
            "ssd.service on 2 machines",
        ],
    )?;
    says(host, 0, &["metadata", &id[..8], "disk-"])?;
    counts("0")?;
    ensure!(!labelled.is_active(unit));
    says(host, 0, &["destroy", unit]).map(drop)
}

/// Checks that a cordoned host keeps its revision without delaying others, and is updated later.
fn cordoned(lab: &Lab, host: &Host) -> Result<()> {
    let kept = lab.host(2);
    let id = kept.machine_id();
    let plain = says(host, 0, &["list-machines"])?;
    ensure!(!plain.contains("STATUS"), "{plain}");
    let told = says(host, 0, &["cordon", &id[..6]])?;
    ensure!(
        told == format!("machine {}... cordoned\n", &id[..8]),
        "{told}"
    );
    let listed = says(host, 0, &["list-machines"])?;
    contains(&listed, &["METADATA\tSTATUS", "cordoned"])?;
    let pid = kept.main_pid(UNIT)?;
    host.write_file(FILE, sleeper(1001))?;
    says(host, 0, &["start", "--replace", FILE])?;
    let done = says(host, 0, &["rollout", "status", "--watch", UNIT])?;
    contains(&done, &["revision 2 is stable"])?;
    let status = says(host, 0, &["rollout", "status", UNIT])?;
    contains(
        &status,
        &[&format!("deferred      1  {}... (cordoned)", &id[..8])],
    )?;
    ensure!(kept.main_pid(UNIT)? == pid, "the cordoned host was updated");
    says(host, 0, &["uncordon", &id[..6]])?;
    runs_everywhere(lab, UNIT, 1001)?;
    let listed = says(host, 0, &["list-machines"])?;
    ensure!(!listed.contains("STATUS"), "{listed}");
    Ok(())
}

/// Checks that a drained host has no unit of fleet's until it is uncordoned.
fn drained(lab: &Lab, host: &Host) -> Result<()> {
    let emptied = lab.host(3);
    let id = emptied.machine_id();
    let told = says(host, 0, &["drain", "--wait", &id])?;
    ensure!(
        told == format!("machine {}... drained\n", &id[..8]),
        "{told}"
    );
    ensure!(!emptied.is_active(UNIT), "it runs on");
    ensure!(!emptied.path("/run/fleet/units/web.service").exists());
    let explained = says(host, 0, &["explain", UNIT, "-m", &id[..8]])?;
    contains(
        &explained,
        &[
            "no   scheduling",
            &format!("fleetctl uncordon {}", &id[..8]),
        ],
    )?;
    says(host, 0, &["uncordon", &id])?;
    runs_everywhere(lab, UNIT, 1001)
}
