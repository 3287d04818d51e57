//! Shows that a fleetd that finds the state of an older version affects no unit, and continues.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};
use serde_json::Value;

use crate::support::workload::{self, fleetd, fleetd_again, untouched, works};

const MARKS: &str = "/run/fleet/marks.json";
const DESIRED: &str = "/var/lib/fleet/desired.json";

#[test]
fn fleetd_upgraded_over_older_state_touches_nothing() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        let before = workload::start(lab)?;
        let host = lab.host(1);
        let pid = fleetd(host)?;
        replace_binary(host)?;
        host.sh("systemctl restart fleet.service")?.ok()?;
        fleetd_again(lab, host, pid)?;
        works(lab, "after-upgrade.service")?;
        untouched(lab, &before, "an upgrade")?;

        // The form of the first versions, and conversely one with fields that a later version may
        // add.
        for (what, edit) in [("older", older as fn(&mut Value)), ("newer", newer)] {
            host.sh("systemctl stop fleet.socket fleet.service")?.ok()?;
            for path in [MARKS, DESIRED] {
                let mut notes = serde_json::from_str(&host.read_file(path)?)?;
                edit(&mut notes);
                host.write_file(path, notes.to_string())?;
            }
            host.sh("systemctl start fleet.socket fleet.service")?
                .ok()?;
            works(lab, &format!("after-{what}-notes.service"))?;
            untouched(lab, &before, &format!("{what} notes"))?;
        }
        let journal = workload::fleet_journal(host)?;
        ensure!(
            !journal.contains("marks of started units are lost"),
            "{journal}"
        );
        ensure!(!journal.contains("starting without it"), "{journal}");
        Ok(())
    });
}

fn older(notes: &mut Value) {
    let Some(notes) = notes.as_object_mut() else {
        return;
    };
    for added in ["restarting", "skipped"] {
        notes.remove(added);
    }
    for (_, want) in notes
        .get_mut("desired")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        for added in ["created", "min_ready", "deferred", "grant"] {
            want.as_object_mut().map(|want| want.remove(added));
        }
    }
}

fn newer(notes: &mut Value) {
    notes["added-later"] = Value::Bool(true);
    for units in ["units", "desired"] {
        for (_, unit) in notes
            .get_mut(units)
            .and_then(Value::as_object_mut)
            .into_iter()
            .flatten()
        {
            unit["added-later"] = Value::Bool(true);
        }
    }
}

/// Replaces the binary like a package: the same program under another inode, renamed into place.
fn replace_binary(host: &Host) -> Result<()> {
    let (path, new) = (
        host.path("/usr/bin/fleetd"),
        host.path("/usr/bin/.fleetd.new"),
    );
    fs::copy(&path, &new).context("cannot copy fleetd")?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(new, path)?)
}
