//! Shows that all machines may lose their network during an update and return at once. The budget
//! holds all the time, and units outside the update are not affected.

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use super::{BUDGET, clean, on_six_hosts, rolled_out, told, version};
use crate::support::workload::SOON;
use crate::updates::rollouts::trail::{self, Trail};
use crate::updates::rollouts::{at_once, settled, started, submit};

const UNIT: &str = "a.service";
const OTHER: &str = "still.service";

#[test]
fn budget_holds_when_all_machines_return_during_an_update() {
    on_six_hosts(1, |lab| {
        let speaker = lab.host(1);
        started(lab, OTHER, &version(1))?;
        started(lab, UNIT, &version(1))?;
        let others = at_once(lab.hosts(), |host| host.main_pid(OTHER))?;
        let since = trail::now()?;
        submit(speaker, UNIT, &version(2))?;
        lab.wait_until(SOON, "some hosts are under way", || {
            Ok(Trail::of(lab, UNIT, since)?.went() > 0)
        })?;
        at_once(lab.hosts(), Host::partition)?;
        lab.wait_until(SOON, "no machine is there any more", || {
            Ok(present(lab)?.is_empty())
        })?;
        for host in lab.hosts() {
            told(lab, host, "the registry is away; units run on as they are")?;
        }
        let away = Trail::of(lab, UNIT, since)?;
        ensure!(away.tried(2) < lab.hosts().len(), "it was over before");
        ensure!(away.went() <= BUDGET, "{}", away.most_down().1);

        at_once(lab.hosts(), Host::heal)?;
        lab.wait_until(SOON, "all machines are there again", || {
            Ok(present(lab)?.lines().count() == lab.hosts().len())
        })?;
        settled(lab, speaker, UNIT)?;
        lab.wait_until(SOON, "every host runs the new version", || {
            Ok(Trail::of(lab, UNIT, since)?.tried(2) == lab.hosts().len())
        })?;
        rolled_out(&Trail::of(lab, UNIT, since)?, 2)?;
        clean(lab)?;
        ensure!(
            at_once(lab.hosts(), |host| host.main_pid(OTHER))? == others,
            "an unchanged unit was restarted"
        );
        Ok(())
    });
}

/// Returns the keys of the live machines in etcd.
fn present(lab: &Lab) -> Result<String> {
    lab.member(1)
        .etcdctl(&[
            "get",
            "--prefix",
            "--keys-only",
            "/_coreos.com/fleet/machines/",
        ])?
        .ok()
        .map(|keys| keys.replace("\n\n", "\n"))
}
