//! status: how units fare on every machine, or the cluster at a glance.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use fleet_core::api::{ClusterStatus, UnitOnMachine, UnitStatus};
use fleet_core::record::TargetState;

use super::log_lines::{LogLines, log_lines};
use crate::client::Client;
use crate::describe;
use crate::output::{say, talk};
use crate::remote::Ssh;
use crate::select::known_units;

/// systemctl's exit codes: scripts that ask either need to know only one set.
const NOT_ACTIVE: u8 = 3;
const NO_SUCH_UNIT: u8 = 4;

#[derive(Args)]
#[command(after_help = "Exit codes with units, as systemctl's:
  0  all are active wherever they belong
  3  some are not
  4  some do not exist

Examples:
  fleetctl status
  fleetctl status hello.service 'web@*'")]
pub(crate) struct Status {
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
    /// Show the last N log lines of every machine, over ssh; without it, a few of this machine's own
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,
}

impl Status {
    pub(super) async fn run(self, client: &mut Client, ssh: &Ssh) -> anyhow::Result<ExitCode> {
        if self.names.is_empty() {
            let cluster = client
                .cluster_status()
                .await
                .context("Error retrieving status of the cluster")?;
            say(cluster_text(&cluster))?;
            return Ok(ExitCode::SUCCESS);
        }
        let retrieving = "Error retrieving status of units";
        let known = known_units(client.units().await.context(retrieving)?, &self.names)?;
        let mut missing = known.unknown;
        let mut blocks = Vec::new();
        let mut all_active = true;
        for unit in known.units {
            match client
                .unit_status(&unit.name, None)
                .await
                .context(retrieving)?
            {
                Some(status) => {
                    all_active &= is_active(&status);
                    let logs = log_lines(ssh, &status, self.lines).await;
                    blocks.push(unit_text(&status, &logs, SystemTime::now()));
                }
                None => missing.push(unit.name),
            }
        }
        if !blocks.is_empty() {
            say(blocks.join("\n\n"))?;
        }
        for name in &missing {
            talk(format_args!("Unit {name} does not exist."));
        }
        Ok(match (missing.is_empty(), all_active) {
            (true, true) => ExitCode::SUCCESS,
            (true, false) => NOT_ACTIVE.into(),
            (false, _) => NO_SUCH_UNIT.into(),
        })
    }
}

/// Whether the unit runs, or did its work, on every machine where it belongs, and on one at least.
fn is_active(status: &UnitStatus) -> bool {
    let active = |unit: &UnitOnMachine| {
        unit.report.as_ref().is_some_and(|report| {
            // A oneshot that did its work is inactive; one that is only loaded has not.
            let done = report.ready && status.desired_state == TargetState::Launched.as_str();
            done || ["active", "reloading"].contains(&report.active.as_str())
        })
    };
    let mut placed = status.machines.iter().filter(|unit| unit.placed).peekable();
    placed.peek().is_some() && placed.all(active)
}

fn unit_text(status: &UnitStatus, logs: &LogLines, now: SystemTime) -> String {
    let title = match status.description.as_str() {
        "" => status.name.clone(),
        description => format!("{} - {description}", status.name),
    };
    let (placed, elsewhere): (Vec<_>, Vec<_>) =
        status.machines.iter().partition(|unit| unit.placed);
    let mut lines = vec![
        title,
        format!("  Target: {}", status.desired_state),
        format!(
            "Revision: {} ({})",
            status.revision,
            describe::short_hash(&status.hash)
        ),
        format!(
            "Machines: on {} of {}",
            placed.len(),
            count(status.machines.len())
        ),
    ];
    for unit in placed {
        lines.push(format!("  {}", machine_line(unit, status, now)));
        lines.extend(
            unit.problem
                .as_ref()
                .map(|problem| format!("    problem: {problem}")),
        );
        let logged = logs.get(&unit.machine_id).into_iter().flatten();
        lines.extend(logged.map(|line| format!("    {line}")));
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for unit in elsewhere {
        *reasons.entry(&unit.reason).or_default() += 1;
    }
    let not_on = |(reason, machines)| format!("  not on {}: {reason}", count(machines));
    lines.extend(reasons.into_iter().map(not_on));
    lines.join("\n")
}

fn count(machines: usize) -> String {
    match machines {
        1 => "1 machine".to_owned(),
        n => format!("{n} machines"),
    }
}

fn machine_line(unit: &UnitOnMachine, status: &UnitStatus, now: SystemTime) -> String {
    let machine = describe::machine(&unit.machine_id, &unit.primary_ip, false);
    let Some(report) = &unit.report else {
        return format!("{machine}  not reported yet");
    };
    let mut line = format!("{machine}  {}", describe::state(report));
    if report.since > 0 {
        line.push_str(&format!(" since {}", describe::moment(report.since, now)));
    }
    if report.revision != status.revision {
        line.push_str(&format!(", revision {}", report.revision));
    }
    line
}

fn cluster_text(cluster: &ClusterStatus) -> String {
    let or = |text: &str, none: &str| if text.is_empty() { none } else { text }.to_owned();
    let mut lines = vec![
        format!(
            "Registry: {}, revision {}",
            or(&cluster.cluster, "no cluster id yet"),
            cluster.registry_revision
        ),
        format!("  Leader: {}", or(&cluster.leader, "none")),
        format!("Machines: {}", cluster.machines),
        format!("   Units: {}", cluster.units),
        match cluster.problems.len() {
            0 => "Problems: none".to_owned(),
            n => format!("Problems: {n}"),
        },
    ];
    lines.extend(cluster.problems.iter().map(|problem| {
        let place = match problem.machine_id.as_str() {
            "" => "registry".to_owned(),
            id => describe::short_id(id),
        };
        format!("  {place} {}: {}", problem.subject, problem.text)
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::api::Problem;
    use fleet_core::record::UnitReport;
    use std::time::Duration;

    const SINCE: u64 = 1_795_329_641_000;

    fn on_machine(id: &str, report: Option<UnitReport>) -> UnitOnMachine {
        UnitOnMachine {
            machine_id: id.repeat(32),
            primary_ip: format!("10.99.1.{id}"),
            placed: true,
            report,
            ..UnitOnMachine::default()
        }
    }

    fn report(active: &str, sub: &str) -> UnitReport {
        UnitReport {
            load: "loaded".into(),
            active: active.into(),
            sub: sub.into(),
            revision: 2,
            hash: String::new(),
            since: SINCE,
            restarts: 0,
            result: "success".into(),
            launched: true,
            ready: active == "active",
        }
    }

    fn hello(machines: Vec<UnitOnMachine>) -> UnitStatus {
        UnitStatus {
            name: "hello.service".into(),
            description: "Hello global".into(),
            desired_state: "launched".into(),
            global: true,
            revision: 2,
            hash: "e83c16edc9c35e3b86d078e1c4c8841f42bf397b".into(),
            machines,
            ..UnitStatus::default()
        }
    }

    #[test]
    fn a_unit_shows_each_machine_that_has_it_and_why_others_do_not() {
        let failed = UnitReport {
            restarts: 5,
            result: "exit-code".into(),
            revision: 1,
            ..report("failed", "failed")
        };
        let mut clash = on_machine("3", None);
        clash.problem = Some("a unit of that name is there already, and not fleet's".into());
        let mut elsewhere = on_machine("4", None);
        elsewhere.placed = false;
        elsewhere.reason = "metadata host is n4, not n1".into();
        let status = hello(vec![
            on_machine("1", Some(report("active", "running"))),
            on_machine("2", Some(failed)),
            clash,
            elsewhere,
        ]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(SINCE + 6_000);
        let logs = LogLines::from([("2".repeat(32), vec!["exiting".to_owned()])]);
        insta::assert_snapshot!(unit_text(&status, &logs, now), @r"
        hello.service - Hello global
          Target: launched
        Revision: 2 (e83c16e)
        Machines: on 3 of 4 machines
          11111111.../10.99.1.1  active (running) since 2026-11-22 06:40:41 UTC; 6s ago
          22222222.../10.99.1.2  failed (failed), 5 restarts, result exit-code since 2026-11-22 06:40:41 UTC; 6s ago, revision 1
            exiting
          33333333.../10.99.1.3  not reported yet
            problem: a unit of that name is there already, and not fleet's
          not on 1 machine: metadata host is n4, not n1
        ");
    }

    #[test]
    fn a_unit_is_active_when_it_is_so_wherever_it_belongs() {
        let running = || on_machine("1", Some(report("active", "running")));
        let mut elsewhere = on_machine("2", None);
        elsewhere.placed = false;
        assert!(is_active(&hello(vec![running(), elsewhere.clone()])));
        assert!(!is_active(&hello(vec![running(), on_machine("2", None)])));
        assert!(!is_active(&hello(vec![elsewhere])));
    }

    #[test]
    fn a_oneshot_is_active_when_it_did_its_work() {
        let done = UnitReport {
            ready: true,
            ..report("inactive", "dead")
        };
        let mut status = hello(vec![on_machine("1", Some(done))]);
        assert!(is_active(&status));
        status.desired_state = "loaded".into();
        assert!(!is_active(&status));
    }

    #[test]
    fn the_cluster_at_a_glance_names_every_problem() {
        let cluster = ClusterStatus {
            registry_revision: 17,
            machines: 3,
            units: 1,
            problems: vec![
                Problem {
                    machine_id: "1".repeat(32),
                    subject: "hello.service".into(),
                    text: "the name is taken".into(),
                },
                Problem {
                    subject: "units/x.service".into(),
                    text: "it is damaged".into(),
                    ..Problem::default()
                },
            ],
            ..ClusterStatus::default()
        };
        insta::assert_snapshot!(cluster_text(&cluster), @r"
        Registry: no cluster id yet, revision 17
          Leader: none
        Machines: 3
           Units: 1
        Problems: 2
          11111111... hello.service: the name is taken
          registry units/x.service: it is damaged
        ");
    }
}
