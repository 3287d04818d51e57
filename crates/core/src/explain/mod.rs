//! Why a unit runs on a machine, or does not: every condition in order, and what would change the
//! answer.
//!
//! The conditions are those of the agent itself: [`place`](crate::place), [`choose`] and the state
//! of its systemd. They form a list that a person can read from the top. The first that does not
//! hold is the answer.

use crate::api::{ExplainedMachine, Predicate};
use crate::machine::{MachineId, Metadata, Scheduling};
use crate::place::{Placeable, Verdict, conflict, place};
use crate::record::{UnitRecord, UnitReport};
use crate::rollout::{Choice, Presence, Present, choose};
use crate::timestamp::timestamp;
use crate::unit::{TargetState, UnitName};

/// A unit, as far as the question is about it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Its name.
    pub name: &'a UnitName,
    /// Its record and how it is placed; none if there is no such unit.
    pub unit: Option<(&'a UnitRecord, Placeable<'a>)>,
    /// Every unit, this one too.
    pub all: &'a [Placeable<'a>],
    /// The part of the stable revision that a process depends on.
    pub stable_process: &'a str,
    /// The reason why the leader waits, in its own words.
    pub waits: Option<&'a str>,
}

/// A machine, as far as the question is about it.
#[derive(Clone, Debug)]
pub struct OnMachine<'a> {
    /// Its id.
    pub id: &'a MachineId,
    /// The address that listings show.
    pub primary_ip: &'a str,
    /// Whether it is here.
    pub presence: Presence,
    /// Its metadata as units see it.
    pub metadata: &'a Metadata,
    /// The limits on starting units there.
    pub scheduling: Scheduling,
    /// Its report about the unit; `None` while it has put no file in place.
    pub report: Option<&'a UnitReport>,
    /// The part of the reported revision that a process depends on; `None` if that revision is no
    /// longer known.
    pub process: Option<String>,
    /// The revision that a grant to its present session, for this unit, names.
    pub granted: Option<u64>,
    /// The problem with the unit there.
    pub problem: Option<&'a str>,
    /// Why it does not follow the registry; none if it does.
    pub held: Option<&'a str>,
}

/// A condition, and what would make it hold.
struct Judged {
    predicate: Predicate,
    remedy: Option<String>,
}

fn judged(name: impl Into<String>, holds: bool, reason: impl Into<String>) -> Judged {
    Judged {
        predicate: Predicate {
            name: name.into(),
            holds,
            reason: reason.into(),
        },
        remedy: None,
    }
}

impl Judged {
    /// Says what would make it hold, if it does not.
    fn else_do(mut self, remedy: impl Into<String>) -> Self {
        if !self.predicate.holds {
            self.remedy = Some(remedy.into());
        }
        self
    }
}

/// Explains one unit on one machine.
pub fn explain(asked: &Asked<'_>, machine: &OnMachine<'_>) -> ExplainedMachine {
    let judged = asked.judge(machine);
    let missing = judged.iter().find(|it| !it.predicate.holds);
    let (verdict, would_change) = match missing {
        None => (asked.as_wanted(machine), None),
        Some(missing) => {
            let running = machine.report.filter(|report| report.active == "active");
            let state = match running {
                Some(report) => format!("runs revision {}, but not as it should", report.revision),
                None => "does not run".to_owned(),
            };
            let reason = &missing.predicate.reason;
            let verdict = format!("{} {state} on {}: {reason}", asked.name, machine.id.short());
            (verdict, missing.remedy.clone())
        }
    };
    ExplainedMachine {
        machine_id: machine.id.to_string(),
        primary_ip: machine.primary_ip.to_owned(),
        predicates: judged.into_iter().map(|it| it.predicate).collect(),
        verdict,
        would_change,
    }
}

impl Asked<'_> {
    fn judge(&self, machine: &OnMachine<'_>) -> Vec<Judged> {
        let name = self.name;
        let Some((record, placeable)) = &self.unit else {
            let exists = judged("exists", false, "it is not in the registry")
                .else_do(format!("fleetctl start {name} submits and starts it"));
            return vec![exists];
        };
        let mut all = vec![
            judged("exists", true, "it is in the registry"),
            judged(
                "launched",
                record.target == TargetState::Launched,
                format!("its target state is {}", record.target),
            )
            .else_do(format!("fleetctl start {name}")),
            judged(
                "not-a-template",
                !name.is_template() || record.target == TargetState::Loaded,
                match name.is_template() {
                    true => "it is a template",
                    false => "it is not a template",
                },
            )
            .else_do("an instance of it, such as NAME@1, can be started"),
            judged(
                "global",
                placeable.options.global,
                match placeable.options.global {
                    true => "Global=true",
                    false => "it is not a global unit",
                },
            )
            .else_do("Global=true in its [X-Fleet] section"),
        ];
        if let Some(misread) = placeable.options.unreadable() {
            let reason = format!("it runs nowhere until its file is fixed: {misread}");
            all.push(judged("understood", false, reason).else_do(format!(
                "fleetctl start --replace {name}, once the file is fixed"
            )));
        }
        all.extend(metadata(placeable, machine));
        all.push(self.conflicts(placeable, machine));
        all.push(live(machine));
        all.push(scheduling(placeable, machine));
        all.push(follows(machine));
        all.push(self.revision(record, machine));
        all.push(self.in_order(machine));
        let belongs = all.iter().all(|it| it.predicate.holds);
        all.push(state(name, machine, belongs));
        all
    }

    fn conflicts(&self, unit: &Placeable<'_>, machine: &OnMachine<'_>) -> Judged {
        let verdicts = place(self.all.iter().copied(), machine.metadata);
        // Where a unit is placed depends only on those that were created before it.
        let rival = self.all.iter().find(|other| {
            (other.created, other.name) < (unit.created, unit.name)
                && verdicts.get(other.name) == Some(&Verdict::Run)
                && conflict(unit, other)
        });
        match rival {
            Some(rival) => {
                let reason = format!(
                    "it conflicts with {}, which was created first and belongs there",
                    rival.name
                );
                judged("no-conflict", false, reason)
                    .else_do(format!("fleetctl unload {} makes room for it", rival.name))
            }
            None => judged("no-conflict", true, "it conflicts with no unit there"),
        }
    }

    fn revision(&self, record: &UnitRecord, machine: &OnMachine<'_>) -> Judged {
        let present = machine.report.map(|report| Present {
            revision: report.revision,
            process: machine.process.as_deref().unwrap_or("not known any more"),
            launched: report.launched,
        });
        let heading = record.heading().number;
        let stable = record.stable.number;
        let choice = choose(record, machine.granted, present, self.stable_process);
        let (number, why) = match choice {
            Choice::Candidate => {
                let number = record.newest().number;
                let why = match machine.granted == Some(number) {
                    true => "which the leader granted",
                    false => "which it had already",
                };
                (number, format!("the candidate, {number}, {why}"))
            }
            Choice::Stable => (stable, format!("the stable revision, {stable}")),
            Choice::Keep => {
                let number = present.map_or(stable, |present| present.revision);
                (number, format!("{number}, which it has"))
            }
        };
        let reason = if machine.report.is_none() {
            format!("its revision there would be {why}")
        } else if number == heading {
            format!("its revision there is {why}")
        } else {
            let waits = self.waits.unwrap_or("the leader has not granted it yet");
            format!("its revision there is {why}; to revision {heading}: {waits}")
        };
        // Another revision than the newest is no reason not to run.
        judged("revision", true, reason)
    }

    /// Whether the agent could do what it should.
    fn in_order(&self, machine: &OnMachine<'_>) -> Judged {
        match machine.problem {
            Some(problem) => judged("no-problem", false, problem)
                .else_do("the machine's journal says more: journalctl -u fleet"),
            None => judged(
                "no-problem",
                true,
                "no unit of that name that is not fleet's is in its way, and its file is in order",
            ),
        }
    }

    fn as_wanted(&self, machine: &OnMachine<'_>) -> String {
        let revision = machine.report.map_or(0, |report| report.revision);
        let does = match machine.report {
            Some(report) if report.skipped => "is held back by a condition in its file",
            _ => "runs",
        };
        format!(
            "{} {does} on {}, revision {revision}",
            self.name,
            machine.id.short()
        )
    }
}

/// One condition for each key that the unit asks for.
fn metadata(unit: &Placeable<'_>, machine: &OnMachine<'_>) -> Vec<Judged> {
    let wanted = unit.options.machine_metadata.iter();
    let keys = wanted.map(|(key, accepted)| {
        let found = machine.metadata.get(key);
        let holds = found.is_some_and(|value| accepted.contains(value));
        let wanted: Vec<&str> = accepted.iter().map(String::as_str).collect();
        let wanted = wanted.join(" or ");
        let reason = match found {
            Some(found) if holds => format!("{key}={found} is what it needs"),
            Some(found) => format!("it needs {key}={wanted}, and {key}={found} here"),
            None => format!("it needs {key}={wanted}, and {key} is not set here"),
        };
        let value = accepted.first().map_or("", String::as_str);
        judged(format!("metadata {key}"), holds, reason).else_do(format!(
            "fleetctl metadata {} {key}={value}",
            machine.id.short()
        ))
    });
    keys.collect()
}

fn live(machine: &OnMachine<'_>) -> Judged {
    let (holds, reason) = match machine.presence {
        Presence::Live(_) => (true, "the machine is here".to_owned()),
        Presence::Offline(_) | Presence::Awaited(_) => {
            let since = machine.presence.offline_since();
            let since = since.map(|at| format!(" since {}", timestamp(at)));
            let since = since.unwrap_or_default();
            (
                false,
                format!("the machine is offline{since}, and what runs there is not known"),
            )
        }
    };
    judged("online", holds, reason).else_do("fleetd running there, and reaching the registry")
}

fn scheduling(unit: &Placeable<'_>, machine: &OnMachine<'_>) -> Judged {
    let has = machine.report.is_some();
    let (holds, reason) = match machine.scheduling {
        Scheduling::Normal => (true, "everything that belongs there may start"),
        Scheduling::Cordoned if unit.options.tolerates_cordon => {
            (true, "the machine is cordoned, which the unit tolerates")
        }
        Scheduling::Cordoned if has => (
            true,
            "the machine is cordoned: what is there stays, and is not updated",
        ),
        Scheduling::Cordoned => (
            false,
            "the machine is cordoned, and nothing new starts there",
        ),
        Scheduling::Drained => (false, "the machine is drained, and nothing runs there"),
    };
    judged("scheduling", holds, reason).else_do(format!("fleetctl uncordon {}", machine.id.short()))
}

fn follows(machine: &OnMachine<'_>) -> Judged {
    match machine.held {
        Some(why) => judged("registry-followed", false, why),
        None => judged(
            "registry-followed",
            true,
            "the machine follows the registry",
        ),
    }
}

/// `belongs`: whether every other condition holds.
fn state(name: &UnitName, machine: &OnMachine<'_>, belongs: bool) -> Judged {
    let Some(report) = machine.report else {
        if matches!(machine.presence, Presence::Offline(_)) {
            return judged(
                "state",
                false,
                "its state is unknown while the machine is offline",
            );
        }
        if !belongs {
            let reason = "its file is not there, because a condition above does not hold";
            return judged("state", false, reason);
        }
        return judged(
            "state",
            false,
            "the machine has not put its file in place yet",
        )
        .else_do("time, or the next problem that the machine reports");
    };
    let state = format!("{} ({})", report.active, report.sub);
    let (holds, reason) = match &report.failed {
        Some(failed) => (false, format!("systemd has it {state}; {failed}")),
        None if report.skipped => (
            true,
            format!("systemd has it {state}: a condition in its file is not met there"),
        ),
        None if report.available => (true, format!("systemd has it {state}, and it is available")),
        None if report.ready => (
            true,
            format!("systemd has it {state}; it is ready, but not for MinReadySec yet"),
        ),
        None => (false, format!("systemd has it {state}")),
    };
    judged("state", holds, reason).else_do(format!("journalctl -u {name} there says why"))
}

#[cfg(test)]
mod tests;
