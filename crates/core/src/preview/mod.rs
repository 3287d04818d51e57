//! Shows the effect of submitting and launching a unit file on each machine, without doing it.

use crate::api::{Batches, PlannedMachine, PlannedUnit};
use crate::machine::{MachineId, Scheduling};
use crate::place::{Verdict, restrict};
use crate::record::{Past, UnitRecord, UnitReport};
use crate::rollout::Presence;
use crate::timestamp::timestamp;
use crate::unit::{
    Content, Difference, Effect, Parsed, TargetState, UnitKind, UpdateStrategy, difference,
};

/// A unit file that may be submitted.
#[derive(Clone, Debug)]
pub struct Proposed<'a> {
    /// It, read.
    pub parsed: &'a Parsed,
    /// The unit as it is; none if it is new. With its newest and its stable revision, read.
    pub existing: Option<Existing<'a>>,
    /// Every machine, live and offline, ordered by id.
    pub machines: Vec<OnMachine<'a>>,
}

/// The unit that a file would update.
#[derive(Clone, Copy, Debug)]
pub struct Existing<'a> {
    /// Its record.
    pub record: &'a UnitRecord,
    /// Whether its newest content is the proposed one, byte for byte.
    pub same: bool,
    /// Its stable revision.
    pub stable: &'a Parsed,
    /// The revision with the proposed content that was rolled back; `None` if there was none.
    pub rolled_back: Option<&'a Past>,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct OnMachine<'a> {
    /// Its id.
    pub id: &'a MachineId,
    /// The address that listings show.
    pub primary_ip: &'a str,
    /// Whether it is here.
    pub presence: Presence,
    /// The limits on starting units there.
    pub scheduling: Scheduling,
    /// Whether the proposed file belongs there, beside the other proposed files, by its metadata.
    pub verdict: Verdict,
    /// Its report about the unit; `None` while it has put no file in place.
    pub report: Option<&'a UnitReport>,
}

impl OnMachine<'_> {
    /// Whether it belongs there, and may start unless it is there.
    fn placed(&self) -> Verdict {
        restrict(self.verdict.clone(), self.scheduling, self.report.is_some())
    }

    fn is_live(&self) -> bool {
        matches!(self.presence, Presence::Live(_))
    }
}

/// Says what `start --replace` of the file would do.
pub fn preview(proposed: &Proposed<'_>) -> PlannedUnit {
    let parsed = proposed.parsed;
    let difference = proposed
        .existing
        .map(|existing| difference(&existing.stable.file, &parsed.file));
    let machines: Vec<PlannedMachine> = proposed
        .machines
        .iter()
        .map(|machine| proposed.machine(machine, difference.as_ref()))
        .collect();
    let (action, reason) = proposed.action(difference.as_ref());
    let restarts = proposed.machines.iter().zip(&machines);
    let restarts = restarts.filter(|(machine, planned)| {
        planned.action == "restart"
            || planned.action == "reload" && proposed.takes_a_grant(machine, difference.as_ref())
    });
    let restarts = restarts.count();
    PlannedUnit {
        name: parsed.name.to_string(),
        error: None,
        action: action.to_owned(),
        effect: difference
            .filter(|_| action == "update")
            .map(|it| effect(parsed.name.kind(), it.effect).to_owned()),
        reason,
        notes: proposed.notes(),
        batches: proposed.batches(restarts),
        stops: proposed.stops(&machines),
        nowhere: proposed.is_taken_from_all(),
        machines,
    }
}

/// What a unit of that kind does for such a change: see [`plan`](crate::plan::plan).
fn effect(kind: UnitKind, effect: Effect) -> &'static str {
    match (effect, kind) {
        (Effect::Nothing, _) => "nothing",
        (Effect::Reload, _)
        | (Effect::Restart, UnitKind::Slice | UnitKind::Target | UnitKind::Timer) => "reload",
        (Effect::Restart, _) => "restart",
    }
}

/// Returns the newest revision with this content that was rolled back, unless the content is stable
/// or a candidate now.
pub fn rolled_back<'a>(
    content: &Content,
    record: &UnitRecord,
    history: impl IntoIterator<Item = &'a Past>,
) -> Option<&'a Past> {
    if *content == record.stable.content || *content == record.newest().content {
        return None;
    }
    history
        .into_iter()
        .filter(|past| past.was_rolled_back() && past.revision.content == *content)
        .max_by_key(|past| past.revision.number)
}

impl Proposed<'_> {
    fn notes(&self) -> Vec<String> {
        let rolled_back = self.existing.and_then(|existing| existing.rolled_back);
        let told = rolled_back.map(|past| {
            let reason = past.dropped.as_deref().unwrap_or("no reason is known");
            format!(
                "revision {} had this content and was rolled back: {reason}",
                past.revision.number
            )
        });
        let notes = self.parsed.notes();
        let nowhere = "it matches no machine, and would run nowhere";
        let nowhere = self.is_taken_from_all().then(|| nowhere.to_owned());
        told.into_iter()
            .chain(nowhere)
            .chain(notes.iter().map(ToString::to_string))
            .collect()
    }

    fn action(&self, difference: Option<&Difference>) -> (&'static str, String) {
        match (self.existing, difference) {
            (Some(existing), _) if existing.same => match existing.record.target {
                TargetState::Launched => ("none", "the registry has this content".to_owned()),
                target => {
                    let reason = format!("the registry has this content; it is {target} now");
                    ("none", reason)
                }
            },
            (Some(_), Some(difference)) => ("update", difference.reason.clone()),
            _ => ("create", "it is not in the registry".to_owned()),
        }
    }

    fn machine(&self, machine: &OnMachine<'_>, difference: Option<&Difference>) -> PlannedMachine {
        let (action, reason) = self.on_machine(machine, difference);
        PlannedMachine {
            machine_id: machine.id.to_string(),
            primary_ip: machine.primary_ip.to_owned(),
            action: action.to_owned(),
            reason,
        }
    }

    fn on_machine(
        &self,
        machine: &OnMachine<'_>,
        difference: Option<&Difference>,
    ) -> (&'static str, String) {
        let placed = machine.placed();
        match (machine.presence, &machine.verdict, &placed) {
            (Presence::Live(_), Verdict::Not(reason), _) if machine.report.is_some() => {
                let runs = machine.report.is_some_and(|report| report.launched);
                match machine.scheduling {
                    Scheduling::Cordoned if runs => (
                        "deferred",
                        format!("{reason}; the machine is cordoned, and keeps what runs"),
                    ),
                    _ => ("stop", reason.to_string()),
                }
            }
            (_, Verdict::Not(_), _) => ("not-matched", machine.verdict.to_string()),
            (Presence::Offline(_) | Presence::Awaited(_), ..) => {
                let since = machine.presence.offline_since();
                let since = since.map(|at| format!(" since {}", timestamp(at)));
                let reason = format!("the machine is offline{}", since.unwrap_or_default());
                ("deferred", reason)
            }
            (_, _, Verdict::Not(reason)) => ("deferred", reason.to_string()),
            (_, _, Verdict::Run) => self.where_it_belongs(machine, difference),
        }
    }

    /// Returns the effect on a live machine where the unit belongs.
    fn where_it_belongs(
        &self,
        machine: &OnMachine<'_>,
        difference: Option<&Difference>,
    ) -> (&'static str, String) {
        let Some(report) = machine.report.filter(|report| report.launched) else {
            return ("start", machine.verdict.to_string());
        };
        let Some((existing, difference)) = self.existing.zip(difference) else {
            return ("start", machine.verdict.to_string());
        };
        let newest = existing.record.newest().number;
        let stable = existing.record.stable.number;
        let cordoned = machine.scheduling == Scheduling::Cordoned;
        if existing.same && report.revision == newest {
            return ("none", format!("it has revision {newest}"));
        }
        let kind = self.parsed.name.kind();
        let (action, reason) = if report.revision == stable && !existing.same {
            (effect(kind, difference.effect), difference.reason.clone())
        } else {
            let reason = format!(
                "it has revision {}, of a rollout that is not done",
                report.revision
            );
            (effect(kind, Effect::Restart), reason)
        };
        match action {
            "restart" | "reload" if cordoned && self.takes_a_grant(machine, Some(difference)) => (
                "deferred",
                "the machine is cordoned, and is not updated".to_owned(),
            ),
            "nothing" => ("none", reason),
            action => (action, reason),
        }
    }

    /// Returns whether the machine waits for its turn: the change is one for a rollout, or a
    /// rollout is under way.
    fn takes_a_grant(&self, machine: &OnMachine<'_>, difference: Option<&Difference>) -> bool {
        let Some((existing, report)) = self.existing.zip(machine.report) else {
            return false;
        };
        let is_first = report.revision == existing.record.stable.number && !existing.same;
        !is_first || difference.is_some_and(|it| it.effect == Effect::Restart)
    }

    /// Returns the number of live machines where it belongs. As the leader counts, cordoned
    /// machines that have it are among them.
    fn live(&self) -> usize {
        let live = self.machines.iter();
        live.filter(|it| it.is_live() && it.placed() == Verdict::Run)
            .count()
    }

    /// Returns how machines take turns to stop it where it does not belong any more.
    fn stops(&self, machines: &[PlannedMachine]) -> Option<Batches> {
        let is_launched = |existing: &Existing<'_>| existing.record.target == TargetState::Launched;
        self.existing.filter(is_launched)?;
        let stops = self.machines.iter().zip(machines).filter(|(it, planned)| {
            let runs = it.report.is_some_and(|report| report.launched);
            runs && planned.action == "stop" && it.scheduling.is_normal()
        });
        let stops = stops.count();
        if stops == 0 {
            return None;
        }
        let policy = self.parsed.options.policy;
        let all = self.live() + stops;
        let at_once = policy.budget(all).min(stops);
        Some(Batches {
            machines: at_once,
            count: stops.div_ceil(at_once),
            reason: match policy.strategy {
                UpdateStrategy::All => "UpdateStrategy=all".to_owned(),
                UpdateStrategy::Rolling | UpdateStrategy::Manual => {
                    format!("MaxUnavailable={} of {all}", policy.max_unavailable)
                }
            },
        })
    }

    /// Returns whether it runs somewhere now, and would belong on no machine.
    fn is_taken_from_all(&self) -> bool {
        let launched = |it: &OnMachine<'_>| it.report.is_some_and(|report| report.launched);
        let runs = self.existing.is_some() && self.machines.iter().any(launched);
        runs && self.machines.iter().all(|it| it.verdict != Verdict::Run)
    }

    fn batches(&self, restarts: usize) -> Option<Batches> {
        if restarts == 0 {
            return None;
        }
        let live = self.live();
        let policy = self.parsed.options.policy;
        let at_once = policy.budget(live).min(restarts);
        let reason = match policy.strategy {
            UpdateStrategy::All => "UpdateStrategy=all".to_owned(),
            UpdateStrategy::Rolling => {
                format!("MaxUnavailable={} of {live}", policy.max_unavailable)
            }
            UpdateStrategy::Manual => format!(
                "MaxUnavailable={} of {live}, once somebody resumes it (UpdateStrategy=manual)",
                policy.max_unavailable
            ),
        };
        Some(Batches {
            machines: at_once,
            count: restarts.div_ceil(at_once),
            reason,
        })
    }
}

#[cfg(test)]
mod tests;
