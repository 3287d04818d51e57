//! The output of `status` without units: the cluster, its problems and its offline machines.

use std::collections::BTreeMap;

use fleet_core::api::{ClusterStatus, OfflineMachine, Problem};
use fleet_core::problem::ProblemKind;

use crate::describe;

pub(super) fn cluster_text(cluster: &ClusterStatus) -> String {
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
    lines.extend(problem_lines(&cluster.problems));
    lines.extend(offline_lines(&cluster.offline));
    lines.join("\n")
}

/// Returns one line for each problem. Machines with the same problem share a line.
fn problem_lines(problems: &[Problem]) -> Vec<String> {
    let mut lines: Vec<(&Problem, Vec<&str>)> = Vec::new();
    let mut known: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for problem in problems {
        let same = (&*problem.subject, &*problem.text);
        let at = *known.entry(same).or_insert(lines.len());
        match lines.get_mut(at) {
            Some((_, machines)) => machines.push(&problem.machine_id),
            None => lines.push((problem, vec![&problem.machine_id])),
        }
    }
    let line = |(problem, machines): (&Problem, Vec<&str>)| {
        let (subject, text) = (&problem.subject, &problem.text);
        let place = match (&*problem.machine_id, problem.kind) {
            ("", ProblemKind::Other) => "registry ".to_owned(),
            ("", _) => String::new(),
            _ => describe::machines(machines, false) + " ",
        };
        format!("  {place}{subject}: {text}")
    };
    lines.into_iter().map(line).collect()
}

/// The number of offline machines that are named: a rack, not the whole cluster.
const OFFLINE_NAMED: usize = 10;

/// Returns the lines about offline machines, if there are any.
fn offline_lines(offline: &[OfflineMachine]) -> Vec<String> {
    if offline.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!(
        " Offline: {}; their state is unknown, and they catch up when they return",
        offline.len()
    )];
    lines.extend(offline.iter().take(OFFLINE_NAMED).map(|machine| {
        let name = describe::machine(&machine.machine_id, &machine.primary_ip, false);
        let since = machine.since.map(describe::date);
        format!("  {name} since {}", since.as_deref().unwrap_or("just now"))
    }));
    if let Some(more @ 1..) = offline.len().checked_sub(OFFLINE_NAMED) {
        lines.push(format!("  and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: ProblemKind, machine: &str, subject: &str, text: &str) -> Problem {
        Problem {
            kind,
            machine_id: machine.repeat(32),
            subject: subject.into(),
            text: text.into(),
        }
    }

    #[test]
    fn cluster_text_names_each_problem_and_its_machines() {
        let cluster = ClusterStatus {
            registry_revision: 17,
            machines: 3,
            units: 1,
            offline: vec![OfflineMachine {
                machine_id: "4".repeat(32),
                primary_ip: "10.99.1.4".into(),
                since: Some(1_795_329_641_000),
            }],
            problems: vec![
                problem(
                    ProblemKind::Other,
                    "1",
                    "hello.service",
                    "the name is taken",
                ),
                problem(
                    ProblemKind::Failed,
                    "1",
                    "web.service",
                    "failed (exit-code)",
                ),
                problem(
                    ProblemKind::Failed,
                    "2",
                    "web.service",
                    "failed (exit-code)",
                ),
                problem(
                    ProblemKind::RolledBack,
                    "",
                    "web.service",
                    "revision 2 was rolled back",
                ),
                problem(ProblemKind::Other, "", "units/x.service", "it is damaged"),
            ],
            ..ClusterStatus::default()
        };
        insta::assert_snapshot!(cluster_text(&cluster), @r"
        Registry: no cluster id yet, revision 17
          Leader: none
        Machines: 3
           Units: 1
        Problems: 5
          11111111... hello.service: the name is taken
          11111111..., 22222222... web.service: failed (exit-code)
          web.service: revision 2 was rolled back
          registry units/x.service: it is damaged
         Offline: 1; their state is unknown, and they catch up when they return
          44444444.../10.99.1.4 since 2026-11-22 06:40:41 UTC
        ");
    }
}
