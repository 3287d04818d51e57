//! Bad updates are rolled back automatically, and cost no more than the budget.

use anyhow::{Context, Result, ensure};
use lab::Lab;

use super::trail::{self, Trail, Unit};
use super::{
    BUDGET, QUARTER, on_twelve_hosts, pids, rollout, settled, started, submit, until, within_budget,
};

const UNIT: &str = "a.service";

#[test]
fn bad_update_is_rolled_back_and_reports_why() {
    on_twelve_hosts(1, |lab| {
        started(lab, UNIT, &Unit::version(1).file())?;
        let ends = Unit::version(2).then("exit 3").file();
        bad(lab, &ends, "failed (exit-code)", BUDGET).context("one that ends at once")?;
        let refused = Unit::version(3).service("ExecStartPre=no/path").file();
        bad(lab, &refused, "bad unit file setting", 0).context("a file that systemd refuses")?;
        let nothing = format!("[Service]\nRestart=no\n[X-Fleet]\n{QUARTER}");
        bad(lab, &nothing, "bad unit file setting", 0).context("one without ExecStart=")?;
        let missing = Unit::version(5).service("ExecStartPre=/no/such/program");
        bad(lab, &missing.file(), "failed (exit-code)", BUDGET).context("a missing program")?;
        let dies = Unit::version(6)
            .then("sleep 2; exit 3")
            .fleet("MinReadySec=4");
        bad(lab, &dies.file(), "failed (exit-code)", BUDGET).context("one that ends soon")?;
        let slow = Unit::version(7)
            .notifies_after(60)
            .fleet("ProgressDeadlineSec=3");
        bad(lab, &slow.file(), "no further machine", BUDGET).context("one that never is ready")
    });
}

/// Submits a bad version. All hosts run version 1 afterwards, and no more than `most` ever ran
/// anything else.
fn bad(lab: &Lab, content: &str, why: &str, most: usize) -> Result<()> {
    // A failure is blamed on the update only if the unit was available before.
    until(lab, lab.host(2), UNIT, "is available", |status| {
        status["available"] == status["desired"]
    })?;
    let (before, since) = (pids(lab, UNIT)?, trail::now()?);
    let earlier = rollout(lab.host(1), UNIT)?;
    submit(lab.host(1), UNIT, content)?;
    until(lab, lab.host(2), UNIT, "has gone back", |status| {
        status["last"]["ended"] == "rolled-back" && status["last"] != earlier["last"]
    })?;
    ensure!(settled(lab, lab.host(2), UNIT)? == 1);
    let trail = Trail::of(lab, UNIT, since)?;
    within_budget(&trail)?;
    let after = pids(lab, UNIT)?;
    let touched = before.iter().zip(&after).filter(|(old, new)| old != new);
    let touched = touched.count();
    ensure!(
        touched <= most,
        "{touched} hosts were touched\n{}",
        trail.most_down().1
    );
    let told = rollout(lab.host(3), UNIT)?;
    let reason = told["last"]["reason"].as_str().unwrap_or("");
    ensure!(
        reason.contains(why) && names_a_host(lab, reason),
        "{told:#}"
    );
    Ok(())
}

fn names_a_host(lab: &Lab, text: &str) -> bool {
    let mut ids = lab.hosts().iter().map(|host| host.machine_id());
    ids.any(|id| text.contains(&id[..8]))
}
