//! Good updates, one after the other on the same hosts.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};
use serde_json::json;

use super::trail::{self, Trail, Unit};
use super::{
    HOSTS, answer, at_once, on_twelve_hosts, order, pids, refuse, rollout, rolls_out, settled,
    started, submit, until, within_budget,
};

const UNIT: &str = "a.service";

#[test]
fn an_update_reaches_every_host_within_its_budget() {
    on_twelve_hosts(1, |lab| {
        started(lab, UNIT, &Unit::version(1).file())?;
        let before = pids(lab, UNIT)?;
        rolls_out(lab, UNIT, &Unit::version(2)).context("a good one")?;
        let after = pids(lab, UNIT)?;
        let moved = before.iter().zip(&after).all(|(old, new)| old != new);
        ensure!(moved, "{before:?} became {after:?}");
        rolls_out(lab, UNIT, &Unit::version(3).notifies_after(1))
            .context("one that starts slowly")?;
        nothing_restarts(lab).context("one that restarts nothing")?;
        all_at_once(lab).context("UpdateStrategy=all")?;
        by_hand(lab).context("UpdateStrategy=manual")?;
        nonsense(lab).context("options that make no sense")?;
        two_at_a_time(lab).context("one on top of another")?;
        other_kinds(lab).context("a oneshot, a timer, a socket")
    });
}

/// Checks that a change without effect on the process is on every host without a restart.
fn nothing_restarts(lab: &Lab) -> Result<()> {
    let before = pids(lab, UNIT)?;
    let stable = rollout(lab.host(1), UNIT)?["revision"].as_u64();
    let unit = Unit::version(3).notifies_after(1);
    let described = format!(
        "# Said anew.\n[Unit]\nDescription=Said anew\n{}",
        unit.file()
    );
    submit(lab.host(1), UNIT, &described)?;
    lab.wait_until(super::SOON, "systemd knows it everywhere", || {
        let said = at_once(lab.hosts(), |host| host.systemctl_show(UNIT, "Description"))?;
        Ok(said.iter().all(|said| said == "Said anew"))
    })?;
    let now = settled(lab, lab.host(2), UNIT)?;
    ensure!(
        stable.map(|stable| stable + 1) == Some(now),
        "revision {now}"
    );
    ensure!(pids(lab, UNIT)? == before, "something was restarted");
    Ok(())
}

fn all_at_once(lab: &Lab) -> Result<()> {
    let since = trail::now()?;
    let unit = Unit::version(4)
        .notifies_after(1)
        .fleet("UpdateStrategy=all");
    submit(lab.host(1), UNIT, &unit.file())?;
    settled(lab, lab.host(2), UNIT)?;
    let trail = Trail::of(lab, UNIT, since)?;
    let (most, story) = trail.most_down();
    ensure!(most == HOSTS && trail.tried(4) == HOSTS, "{story}");
    Ok(())
}

fn by_hand(lab: &Lab) -> Result<()> {
    let (before, since) = (pids(lab, UNIT)?, trail::now()?);
    let unit = Unit::version(5).fleet("UpdateStrategy=manual");
    submit(lab.host(1), UNIT, &unit.file())?;
    until(lab, lab.host(2), UNIT, "waits", |status| {
        status["phase"] == "paused"
    })?;
    ensure!(pids(lab, UNIT)? == before, "it did not wait");
    order(lab.host(3), UNIT, "resume")?;
    settled(lab, lab.host(2), UNIT)?;
    within_budget(&Trail::of(lab, UNIT, since)?)
}

fn nonsense(lab: &Lab) -> Result<()> {
    let before = (
        pids(lab, UNIT)?,
        rollout(lab.host(1), UNIT)?["revision"].clone(),
    );
    for value in ["0", "-3", "120%", "ten"] {
        let bad = Unit::version(9)
            .fleet(&format!("MaxUnavailable={value}"))
            .file();
        lab.host(1).write_file("/root/a.service", bad)?;
        let refused = lab
            .host(1)
            .fleetctl(&["start", "--replace", "/root/a.service"])?;
        ensure!(
            refused.code == 1 && refused.stderr.contains("use a number of machines"),
            "{refused:?}"
        );
    }
    let undo = json!({"action": "undo", "to": 99});
    let refused = refuse(lab.host(1), UNIT, &undo)?;
    ensure!(refused.contains("99"), "{refused}");
    let restart = json!({"action": "restart"});
    answer(
        lab.host(1),
        "POST",
        "rollouts/missing.service",
        Some(&restart),
        404,
    )?;
    let after = (
        pids(lab, UNIT)?,
        rollout(lab.host(1), UNIT)?["revision"].clone(),
    );
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

/// Checks that only the second of two updates reaches the hosts, and the budget holds for both
/// together.
fn two_at_a_time(lab: &Lab) -> Result<()> {
    let since = trail::now()?;
    submit(
        lab.host(1),
        UNIT,
        &Unit::version(6).notifies_after(1).file(),
    )?;
    lab.wait_until(super::SOON, "a host has the first one", || {
        Ok(Trail::of(lab, UNIT, since)?.tried(6) > 0)
    })?;
    submit(
        lab.host(5),
        UNIT,
        &Unit::version(7).notifies_after(1).file(),
    )?;
    settled(lab, lab.host(2), UNIT)?;
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    let first = trail.tried(6);
    ensure!(
        first < HOSTS && trail.tried(7) == HOSTS,
        "{}",
        trail.most_down().1
    );
    for (host, versions) in trail.started() {
        ensure!(versions.last() == Some(&7), "{host}: {versions:?}");
    }
    Ok(())
}

fn other_kinds(lab: &Lab) -> Result<()> {
    const FLEET: &str = "[X-Fleet]\nGlobal=true\nMaxUnavailable=25%\n";
    let versions = |text: &str| [text.replace("VERSION", "1"), text.replace("VERSION", "2")];
    let once = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo VERSION >> /srv/once'\n";
    let timer = "[Timer]\nOnActiveSec=VERSIONh\nUnit=once.service\n";
    let socket = "[Socket]\nListenStream=/run/VERSION.sock\nService=once.service\n";
    for (name, text) in [
        ("once.service", once),
        ("t.timer", timer),
        ("s.socket", socket),
    ] {
        let [first, second] = versions(&(text.to_owned() + FLEET));
        started(lab, name, &first)?;
        submit(lab.host(1), name, &second)?;
        ensure!(settled(lab, lab.host(2), name)? == 2, "{name}");
    }
    let seen = |host: &Host| {
        let once = host.read_file("/srv/once")?;
        let timer = host.systemctl_show("t.timer", "TimersMonotonic")?;
        let socket = host.systemctl_show("s.socket", "Listen")?;
        let active = host.is_active("t.timer") && host.is_active("s.socket");
        ensure!(
            active && once == "1\n2\n" && timer.contains("2h") && socket.contains("/run/2.sock"),
            "{once}{timer}\n{socket}"
        );
        Ok(())
    };
    at_once(lab.hosts(), seen).map(drop)
}
