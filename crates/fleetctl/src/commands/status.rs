//! status: the state of units on every machine, or a summary of the cluster.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use fleet_core::api::{ClusterStatus, UnitOnMachine, UnitStatus};

use super::cluster_text::cluster_text;
use super::log_lines::{LogLines, log_lines};
use super::missing::tell_missing;
use super::status_document::{ClusterStatusRow, UnitStatusRow, is_active};
use crate::client::Client;
use crate::describe;
use crate::document::{self, Syntax};
use crate::exit;
use crate::output::printable;
use crate::paint::{self, Paint};
use crate::remote::Ssh;
use crate::select::{Unknown, known_units};
use crate::watch::{self, Look};

#[derive(Args)]
#[command(after_help = "Exit codes:
  0  all units are active on every machine where they belong; without units: there are no problems
  1  fleetd does not answer, or refuses
  3  some units are not active; without units: there are problems
  4  some units do not exist

Examples:
  fleetctl status
  fleetctl status hello.service 'web@*'
  fleetctl status --watch hello.service
  fleetctl status --output json hello.service")]
pub(crate) struct Status {
    /// Names or glob patterns of units in the registry
    #[arg(value_name = "UNIT")]
    names: Vec<String>,
    /// Show the last N log lines of every machine, over ssh; without it, a few lines of this
    /// machine
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,
    /// The port of the machines' SSH servers [default: from your ssh configuration, else 22]
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,
    /// Print a document for programs
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Syntax>,
    /// Print it again whenever it changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// The units that the arguments name, with their statuses.
struct Found {
    statuses: Vec<UnitStatus>,
    missing: Vec<Unknown>,
}

const RETRIEVING: &str = "Error retrieving status of units";

impl Status {
    pub(super) async fn run(
        self,
        client: &mut Client,
        ssh: &Ssh,
        paint: Paint,
    ) -> anyhow::Result<ExitCode> {
        if self.names.is_empty() {
            return self.run_cluster(client).await;
        }
        let ssh = &ssh.on_port(self.ssh_port);
        let found = self.find(client).await?;
        tell_missing(&found.missing);
        let code = found.exit_code();
        if found.statuses.is_empty() && self.output.is_none() {
            return Ok(code);
        }
        let mut found = Some(found);
        watch::show(self.watch, async |look| {
            let now = match (look, found.take()) {
                (Look::First, Some(first)) => first,
                (_, before) => self.find_again(client, before).await?,
            };
            let text = self.units(&now.statuses, ssh, paint).await?;
            found = Some(now);
            Ok(text)
        })
        .await?;
        Ok(code)
    }

    async fn run_cluster(&self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        watch::show(self.watch, async |look| {
            if look == Look::Again {
                tokio::time::sleep(watch::PAUSE).await;
            }
            let cluster = client.cluster_status().await;
            let cluster = cluster.context("Error retrieving status of the cluster")?;
            code = match cluster.problems.is_empty() {
                true => ExitCode::SUCCESS,
                false => exit::PROBLEMS.into(),
            };
            self.cluster(&cluster)
        })
        .await?;
        Ok(code)
    }

    async fn find(&self, client: &mut Client) -> anyhow::Result<Found> {
        let units = client.units().await.context(RETRIEVING)?;
        let known = known_units(units, &self.names)?;
        let mut found = Found {
            statuses: Vec::new(),
            missing: known.unknown,
        };
        let names: Vec<String> = known.units.into_iter().map(|unit| unit.name).collect();
        let ask = async |client: &mut Client, name: &String| {
            client
                .unit_status(name, None)
                .await
                .map_err(anyhow::Error::from)
        };
        for (name, status) in names.iter().zip(client.each(&names, ask).await) {
            match status.context(RETRIEVING)? {
                Some(status) => found.statuses.push(status),
                None => found.missing.push(Unknown::among(name.clone(), [])),
            }
        }
        Ok(found)
    }

    /// Waits for a change of one unit. Several units are read again after a pause.
    async fn find_again(
        &self,
        client: &mut Client,
        before: Option<Found>,
    ) -> anyhow::Result<Found> {
        let only = before.filter(|found| found.missing.is_empty());
        if let Some([status]) = only.as_ref().map(|found| &found.statuses[..]) {
            let after = Some(status.registry_revision);
            let answer = client.unit_status(&status.name, after).await;
            if let Some(status) = answer.context(RETRIEVING)? {
                return Ok(Found {
                    statuses: vec![status],
                    missing: Vec::new(),
                });
            }
        }
        tokio::time::sleep(watch::PAUSE).await;
        self.find(client).await
    }

    async fn units(
        &self,
        statuses: &[UnitStatus],
        ssh: &Ssh,
        paint: Paint,
    ) -> anyhow::Result<String> {
        if let Some(syntax) = self.output {
            let rows: Vec<UnitStatusRow> = statuses.iter().map(UnitStatusRow::from).collect();
            return document::list("UnitStatusList", &rows, syntax);
        }
        // An age would differ at every read.
        let now = (!self.watch).then(SystemTime::now);
        // A few log lines are not watched either, unless the user asked for them.
        let lines = self.lines.or(self.watch.then_some(0));
        let mut blocks = Vec::new();
        for status in statuses {
            let logs = log_lines(ssh, status, lines).await;
            blocks.push(unit_text(status, &logs, now, paint));
        }
        Ok(blocks.join("\n\n") + if blocks.is_empty() { "" } else { "\n" })
    }

    fn cluster(&self, cluster: &ClusterStatus) -> anyhow::Result<String> {
        match self.output {
            Some(syntax) => {
                document::one("ClusterStatus", &ClusterStatusRow::from(cluster), syntax)
            }
            None => Ok(printable(&cluster_text(cluster)) + "\n"),
        }
    }
}

impl Found {
    fn exit_code(&self) -> ExitCode {
        if !self.missing.is_empty() {
            exit::NO_SUCH_UNIT.into()
        } else if self.statuses.iter().all(is_active) {
            ExitCode::SUCCESS
        } else {
            exit::NOT_ACTIVE.into()
        }
    }
}

fn unit_text(
    status: &UnitStatus,
    logs: &LogLines,
    now: Option<SystemTime>,
    paint: Paint,
) -> String {
    let title = match status.description.as_str() {
        "" => status.name.clone(),
        description => format!("{} - {description}", status.name),
    };
    let (placed, elsewhere): (Vec<_>, Vec<_>) =
        status.machines.iter().partition(|unit| unit.placed);
    let mut lines = vec![
        printable(&title),
        printable(&format!("  Target: {}", status.desired_state)),
        printable(&format!(
            "Revision: {} ({})",
            status.revision,
            describe::short_hash(&status.hash)
        )),
    ];
    lines.extend(
        describe::rollout(status).map(|rollout| printable(&format!(" Rollout: {rollout}"))),
    );
    lines.push(format!(
        "Machines: on {} of {}",
        placed.len(),
        describe::count(status.machines.len())
    ));
    for unit in placed {
        lines.push(format!("  {}", machine_line(unit, status, now, paint)));
        lines.extend(
            unit.problem
                .as_ref()
                .map(|problem| printable(&format!("    problem: {problem}"))),
        );
        // The line above already has the whole failure.
        let ended = unit
            .report
            .iter()
            .filter(|it| it.active == "inactive" && unit.problem.is_none());
        let ended = ended.filter_map(|it| it.failed.as_ref());
        lines.extend(ended.map(|why| printable(&format!("    {why}"))));
        let logged = logs.get(&unit.machine_id).into_iter().flatten();
        lines.extend(logged.map(|line| printable(&format!("    {line}"))));
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for unit in elsewhere {
        *reasons.entry(&unit.reason).or_default() += 1;
    }
    let not_on = |(reason, machines)| {
        printable(&format!("  not on {}: {reason}", describe::count(machines)))
    };
    lines.extend(reasons.into_iter().map(not_on));
    lines.join("\n")
}

fn machine_line(
    unit: &UnitOnMachine,
    status: &UnitStatus,
    now: Option<SystemTime>,
    paint: Paint,
) -> String {
    let machine = printable(&describe::machine(
        &unit.machine_id,
        &unit.primary_ip,
        false,
    ));
    let Some(report) = &unit.report else {
        return format!("{machine}  not reported yet");
    };
    let style = paint::active(&report.active);
    let state = printable(&describe::state(report));
    let state = paint.text(style, &state);
    let mut line = format!("{machine}  {state}");
    if report.since > 0 {
        let since = match now {
            Some(now) => describe::moment(report.since, now),
            None => describe::date(report.since),
        };
        line.push_str(&format!(" since {since}"));
    }
    if report.revision != status.revision {
        line.push_str(&format!(", revision {}", report.revision));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::When;
    use fleet_core::api::UnitReport;
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
            ..UnitReport::default()
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
    fn unit_shows_its_machines_and_why_others_lack_it() {
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
        insta::assert_snapshot!(unit_text(&status, &logs, Some(now), Paint::stdout(When::Never)), @r"
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
    fn unit_is_active_if_it_is_on_all_its_machines() {
        let running = || on_machine("1", Some(report("active", "running")));
        let mut elsewhere = on_machine("2", None);
        elsewhere.placed = false;
        assert!(is_active(&hello(vec![running(), elsewhere.clone()])));
        assert!(!is_active(&hello(vec![running(), on_machine("2", None)])));
        assert!(!is_active(&hello(vec![elsewhere])));
    }

    #[test]
    fn oneshot_is_active_after_its_work() {
        let done = UnitReport {
            ready: true,
            ..report("inactive", "dead")
        };
        let mut status = hello(vec![on_machine("1", Some(done))]);
        assert!(is_active(&status));
        status.desired_state = "loaded".into();
        assert!(!is_active(&status));
    }
}
