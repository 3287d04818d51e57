//! Messages after an order: units that are being rolled out, and units that stay down.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};

use fleet_core::api::UnitStatus;
use fleet_core::unit::UnitName;

use crate::client::Client;
use crate::describe;
use crate::output::talk;

/// Prints, at a terminal, which of these units are being rolled out and how to follow them. Scripts
/// written for fleet 1.0 do not expect it.
pub(super) async fn tell_rolling(client: &mut Client, units: &[UnitName]) {
    if !io::stderr().is_terminal() {
        return;
    }
    for unit in units {
        // The order is done. A failure to read the progress is not its failure.
        let Ok(Some(status)) = client.unit_status(unit.as_str(), None).await else {
            continue;
        };
        if let Some(candidate) = status.candidate {
            talk(format_args!(
                "{unit}: revision {} is {}; to follow it: fleetctl rollout status --watch {unit}",
                candidate.revision,
                match candidate.phase.as_str() {
                    "paused" => "paused",
                    _ => "being rolled out",
                }
            ));
        }
    }
}

/// Warns about launched units that stay down on some machines: a second start changes nothing
/// there.
pub(super) async fn tell_down(client: &mut Client, units: &[UnitName]) {
    for unit in units {
        let Ok(Some(status)) = client.unit_status(unit.as_str(), None).await else {
            continue;
        };
        for line in down_lines(&status) {
            talk(line);
        }
    }
}

fn down_lines(status: &UnitStatus) -> Vec<String> {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for unit in status.machines.iter().filter(|unit| unit.placed) {
        let Some(report) = &unit.report else { continue };
        let reason = match &report.failed {
            Some(why) if report.active == "inactive" => why.clone(),
            _ if report.active == "failed" => format!(
                "{}; `fleetctl restart {}` starts it",
                describe::state(report),
                status.name
            ),
            _ => continue,
        };
        reasons.entry(reason).or_default().push(&unit.machine_id);
    }
    let line = |(reason, machines): (String, Vec<&str>)| {
        let machines = describe::machines(machines, false);
        format!(
            "WARNING: Unit {} is launched already and stays down on {machines}: {reason}",
            status.name
        )
    };
    reasons.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use fleet_core::api::{UnitOnMachine, UnitReport};

    use super::*;

    #[test]
    fn units_that_stay_down_are_grouped_by_reason() {
        let on = |id: &str, active: &str, failed: Option<&str>| UnitOnMachine {
            machine_id: id.repeat(32),
            placed: true,
            report: Some(UnitReport {
                load: "loaded".into(),
                active: active.into(),
                sub: "dead".into(),
                failed: failed.map(str::to_owned),
                ..UnitReport::default()
            }),
            ..UnitOnMachine::default()
        };
        let stopped = Some("it was stopped by hand");
        let status = UnitStatus {
            name: "side.service".into(),
            machines: vec![
                on("1", "inactive", stopped),
                on("2", "inactive", stopped),
                on("3", "failed", Some("failed (exit-code)")),
                on("4", "active", None),
                on("5", "activating", Some("systemd restarted it once")),
            ],
            ..UnitStatus::default()
        };
        insta::assert_snapshot!(down_lines(&status).join("\n"), @r"
        WARNING: Unit side.service is launched already and stays down on 33333333...: failed (dead); `fleetctl restart side.service` starts it
        WARNING: Unit side.service is launched already and stays down on 11111111..., 22222222...: it was stopped by hand
        ");
    }
}
