//! Shows orders about rollouts on real hosts: an update that waits for approval restarts nothing.
//! fleetctl shows what would happen and why it did not, and the update is undone.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};
use serde_json::{Value, json};

use crate::support::looking::{SOON, main_pids, runs_everywhere, sleeper};

const UNIT: &str = "a.service";

#[test]
fn manual_update_waits_and_is_planned_explained_and_undone() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let one = lab.host(1);
        one.write_file("/root/a.service", sleeper(1000))?;
        one.fleetctl(&["start", "--wait", "/root/a.service"])?
            .ok()?;
        runs_everywhere(lab, UNIT, 1000)?;
        let before = main_pids(lab, &[UNIT])?;

        let update = sleeper(1001) + "UpdateStrategy=manual\n";
        planned(one, &update).context("the plan")?;
        one.write_file("/root/a.service", &update)?;
        one.fleetctl(&["start", "--replace", "/root/a.service"])?
            .ok()?;
        waits(one).context("the update waits")?;
        ordered(lab).context("orders")?;
        scheduled(lab).context("cordon and uncordon")?;
        ensure!(
            main_pids(lab, &[UNIT])? == before,
            "something was restarted"
        );
        runs_everywhere(lab, UNIT, 1000)
    });
}

#[test]
fn a_restart_an_undo_and_a_rollback_reach_every_host() {
    Lab::builder().hosts(2).etcd(1).test_on_all_suites(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let one = lab.host(1);
        let start = |content: &str| {
            one.write_file("/root/a.service", content)?;
            one.fleetctl(&["start", "--wait", "--replace", "/root/a.service"])
        };
        start(&sleeper(1000))?.ok()?;
        let before = main_pids(lab, &[UNIT])?;

        order(one, json!({"action": "restart"}))?;
        stable(lab, 2)?;
        runs_everywhere(lab, UNIT, 1000)?;
        let restarted = main_pids(lab, &[UNIT])?;
        let all = before.iter().zip(&restarted).all(|(old, new)| old != new);
        ensure!(all, "{before:?} became {restarted:?}");

        start(&sleeper(1001))?.ok()?;
        runs_everywhere(lab, UNIT, 1001)?;
        order(one, json!({"action": "undo"}))?;
        stable(lab, 4)?;
        runs_everywhere(lab, UNIT, 1000)?;

        let bad = sleeper(1002).replace("/bin/sleep 1002", "/bin/false");
        let failed = start(&bad)?;
        ensure!(
            failed.code == 1 && failed.stderr.contains("rolled back"),
            "{failed:?}"
        );
        stable(lab, 4)?;
        runs_everywhere(lab, UNIT, 1000)?;
        let history = answer(one, "GET", "rollouts/a.service/history", None, 200)?;
        let last = &history["revisions"][4];
        ensure!(
            last["number"] == 5 && last["state"] == "rolled-back",
            "{history}"
        );
        let counts = "--fields=unit,rev,desired,available,up-to-date,failed";
        let listed = one
            .fleetctl(&["list-globals", "--no-legend", counts])?
            .ok()?;
        let words: Vec<&str> = listed.split_whitespace().collect();
        ensure!(words == [UNIT, "4", "2", "2", "2", "0"], "{listed}");
        not_brought_back(lab, &bad, &history)
    });
}

fn order(host: &Host, order: Value) -> Result<Value> {
    answer(host, "POST", "rollouts/a.service", Some(&order), 200)
}

/// Waits until no rollout is active, and that revision is available everywhere.
fn stable(lab: &Lab, revision: u64) -> Result<()> {
    lab.wait_until(SOON, &format!("revision {revision} is stable"), || {
        let status = answer(lab.host(2), "GET", "rollouts/a.service", None, 200)?;
        let there = status["available"] == 2 && status["upToDate"] == 2;
        Ok(status["phase"] == "stable" && status["revision"] == revision && there)
    })
}

/// Checks that a units directory that gets the file late does not retry a rolled-back content.
fn not_brought_back(lab: &Lab, bad: &str, history: &Value) -> Result<()> {
    let host = lab.host(2);
    host.write_file("/etc/fleet/units/a.service", bad)?;
    // The same directory publishes it later, so the one before is done when this one runs.
    host.write_file("/etc/fleet/units/b.service", sleeper(1003))?;
    runs_everywhere(lab, "b.service", 1003)?;
    let now = answer(host, "GET", "rollouts/a.service/history", None, 200)?;
    ensure!(now == *history, "{now}");
    runs_everywhere(lab, UNIT, 1000)
}

/// Checks that the update's effect is shown, and nothing is changed.
fn planned(host: &Host, update: &str) -> Result<()> {
    let options = lab_options(update);
    let units = json!({"units": [{"name": UNIT, "options": options}]});
    let plan = answer(host, "POST", "plan", Some(&units), 200)?;
    let unit = &plan["units"][0];
    ensure!(
        unit["action"] == "update" && unit["effect"] == "restart",
        "{plan}"
    );
    ensure!(
        unit["batches"]["machines"] == 1 && unit["batches"]["count"] == 2,
        "{plan}"
    );
    let history = answer(host, "GET", "rollouts/a.service/history", None, 200)?;
    ensure!(
        history["revisions"].as_array().map(Vec::len) == Some(1),
        "{history}"
    );
    Ok(())
}

/// Returns a sleeper's lines as fleet 1.0's clients send them.
fn lab_options(content: &str) -> Vec<Value> {
    let mut section = "";
    let mut options = Vec::new();
    for line in content.lines() {
        if let Some(named) = line.strip_prefix('[') {
            section = named.trim_end_matches(']');
        } else if let Some((name, value)) = line.split_once('=') {
            options.push(json!({"section": section, "name": name, "value": value}));
        }
    }
    options
}

fn waits(host: &Host) -> Result<()> {
    let status = answer(host, "GET", "rollouts/a.service", None, 200)?;
    ensure!(
        status["phase"] == "paused" && status["candidate"] == 2,
        "{status}"
    );
    ensure!(
        status["desired"] == 2 && status["upToDate"] == 0,
        "{status}"
    );
    ensure!(status["available"] == 2, "{status}");
    let held = &status["conditions"][3];
    ensure!(
        held["type"] == "Held" && held["status"] == "True",
        "{status}"
    );
    let explained = answer(host, "GET", "explain/a.service", None, 200)?;
    for machine in explained["machines"].as_array().context("a list")? {
        let verdict = machine["verdict"].as_str().unwrap_or("");
        ensure!(verdict.ends_with(", revision 1"), "{explained}");
        ensure!(
            machine.to_string().contains("UpdateStrategy=manual"),
            "{explained}"
        );
    }
    Ok(())
}

fn ordered(lab: &Lab) -> Result<()> {
    // The other host serves the same registry.
    let host = lab.host(2);
    let order = |action: &str, status| {
        let body = json!({"action": action});
        answer(host, "POST", "rollouts/a.service", Some(&body), status)
    };
    let refused = order("pause", 409)?;
    ensure!(
        refused.to_string().contains("is paused already"),
        "{refused}"
    );
    order("undo", 200)?;
    let journal = host.journal(200)?;
    ensure!(
        journal.contains("undo of a.service ordered over the API"),
        "{journal}"
    );
    let history = answer(host, "GET", "rollouts/a.service/history/2", None, 200)?;
    ensure!(history["content"].is_string(), "{history}");
    answer(host, "GET", "events?unit=a.service", None, 200)?;
    Ok(())
}

fn scheduled(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    let id = lab.host(2).machine_id();
    for (scheduling, shown) in [("cordoned", true), ("normal", false)] {
        let body = json!({"scheduling": scheduling});
        answer(host, "POST", &format!("machines/{id}"), Some(&body), 204)?;
        lab.wait_until(SOON, "the machine shows it", || {
            let machines = answer(host, "GET", "machines", None, 200)?;
            Ok(machines.to_string().contains("cordoned") == shown)
        })?;
    }
    let body = json!({"scheduling": "drained"});
    let unknown = format!("machines/{}", "0".repeat(32));
    answer(host, "POST", &unknown, Some(&body), 404)?;
    Ok(())
}

/// Sends a request to a host's fleetd over its socket, and returns the answer.
pub(crate) fn answer(
    host: &Host,
    method: &str,
    path: &str,
    body: Option<&Value>,
    status: u16,
) -> Result<Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = UnixStream::connect(host.path("/run/fleet.sock"))?;
    stream.set_read_timeout(Some(SOON))?;
    let length = body.len();
    write!(
        stream,
        "{method} /fleet/v1/{path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no body")?;
    let found = head.split(' ').nth(1).unwrap_or("");
    ensure!(found == status.to_string(), "{method} {path}: {text}");
    Ok(serde_json::from_str(body).unwrap_or(Value::Null))
}
