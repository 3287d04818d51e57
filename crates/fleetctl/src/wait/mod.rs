//! Waits until units have the wanted state on every machine where they belong (`start --wait`,
//! `wait`).

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use fleet_core::api::{LastRollout, UnitOnMachine, UnitStatus};
use fleet_core::problem::UnitProblem;
use fleet_core::rollout::{Ended, Phase};
use fleet_core::unit::{TargetState, UnitName};
use tokio::time::Instant;

use crate::client::{Client, ClientError};
use crate::describe;
use crate::output::talk;

/// The timeout of a bare `--wait`.
pub(crate) const DEFAULT_TIMEOUT: &str = "2m";

/// The time between two requests. Many machines report within the same few milliseconds, and one
/// response is enough for all of them. It also prevents a busy loop if fleetd ends every long poll
/// at once.
const PAUSE: Duration = Duration::from_millis(20);

/// The same while the last machines remove a destroyed unit, which no long poll reports.
const PAUSE_GONE: Duration = Duration::from_millis(200);

/// How long units must stay ready, and how long other machines are observed after a failure.
/// systemd calls a simple service active from its fork on. A service whose program is missing, or
/// ends at once, is active for some milliseconds.
const STEADY: Duration = Duration::from_millis(300);

/// The state to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    Ready,
    Active,
    Gone,
}

impl Goal {
    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Gone => "gone",
        }
    }
}

/// The options of waiting.
pub(crate) struct Waiting<'a> {
    pub(crate) goal: Goal,
    pub(crate) timeout: Duration,
    /// Whether this command started the units. Then their target state must not change meanwhile.
    pub(crate) started: bool,
    /// The statuses from before the start, of the units that it changed.
    pub(crate) before: &'a BTreeMap<UnitName, UnitStatus>,
}

/// The result of waiting for one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    There,
    Short,
    /// The unit belongs on no machine, so there is nothing to wait for.
    NoMachine,
}

/// The error for units that belong on no machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "a unit belongs on no machine; it starts on the first that matches, and `fleetctl explain UNIT` shows why"
)]
pub(crate) struct NoMachine;

/// The progress of a unit on all machines where it belongs.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The unit has the wanted state on all of them.
    There,
    /// Nothing changes any more, and some machines do not have the wanted state.
    Stuck,
    /// Some machine is still changing.
    Moving,
}

#[derive(Debug, PartialEq, Eq)]
struct Progress {
    there: usize,
    placed: usize,
    verdict: Verdict,
}

/// Judges a status. `before` is the status from before the awaited change. `None` if there was
/// none.
fn judge(goal: Goal, status: &UnitStatus, before: Option<&UnitStatus>) -> Progress {
    let (mut placed, mut there, mut failed) = (0, 0, 0);
    let awaited = status.machines.iter();
    for unit in awaited.filter(|unit| unit.placed && !unit.deferred) {
        placed += 1;
        if is_there(goal, unit, status) {
            there += 1;
        } else if failure(unit).is_some() && failure(unit) != failure_before(unit, before) {
            failed += 1;
        }
    }
    let verdict = if status.desired_state != TargetState::Launched.as_str() {
        Verdict::Moving
    } else if status.machines.is_empty() {
        // Machines may still come online, for example after the whole cluster was started.
        Verdict::Moving
    } else if there == placed && (placed > 0 || goal == Goal::Ready) {
        Verdict::There
    } else if failed > 0 && there + failed == placed {
        Verdict::Stuck
    } else {
        Verdict::Moving
    };
    Progress {
        there,
        placed,
        verdict,
    }
}

/// Returns why a unit belongs on no machine. `None` if it belongs on one, or no machine is online.
pub(crate) fn no_machine(status: &UnitStatus) -> Option<String> {
    let mut reasons = BTreeMap::new();
    for unit in &status.machines {
        if unit.placed {
            return None;
        }
        *reasons.entry(unit.reason.clone()).or_default() += 1;
    }
    (!reasons.is_empty()).then(|| UnitProblem::NoMachine(reasons).to_string())
}

fn is_there(goal: Goal, unit: &UnitOnMachine, status: &UnitStatus) -> bool {
    unit.problem.is_none()
        && unit.report.as_ref().is_some_and(|report| {
            report.launched
                && report.revision == status.newest()
                && match goal {
                    Goal::Ready => report.available,
                    Goal::Active => ["active", "reloading"].contains(&report.active.as_str()),
                    Goal::Gone => false,
                }
        })
}

/// Returns why the awaited revision will not come: it is being rolled back, or was. `before` is the
/// outcome of the last rollout before.
fn went_back(status: &UnitStatus, before: Option<&LastRollout>) -> Option<String> {
    let told = |revision, what, reason: &str| format!("revision {revision} {what}: {reason}");
    let going = status.candidate.as_ref();
    let going = going.filter(|it| it.phase == Phase::RollingBack.as_str());
    let gone = status.last.as_ref().filter(|last| {
        status.candidate.is_none()
            && Some(*last) != before
            && last.ended == Ended::RolledBack.as_str()
    });
    going
        .map(|it| told(it.revision, "is being rolled back", &it.reason))
        .or_else(|| gone.map(|it| told(it.revision, "was rolled back", &it.reason)))
}

/// The identity of a failure: the problem, the revision, and the time of systemd's state change.
type Failure<'a> = (Option<&'a str>, Option<(u64, u64)>);

/// Returns the failure. systemd reports `failed` only when it will not restart the unit by itself.
fn failure(unit: &UnitOnMachine) -> Option<Failure<'_>> {
    let report = unit.report.as_ref();
    // An inactive unit with a reason is not started again either.
    let failed = unit.problem.is_some()
        || report.is_some_and(|report| {
            report.active == "failed" || report.active == "inactive" && report.failed.is_some()
        });
    let stands = report.map(|report| (report.revision, report.since));
    failed.then_some((unit.problem.as_deref(), stands))
}

/// Returns the failure from before the start. It does not count against this start while it is
/// unchanged.
fn failure_before<'a>(unit: &UnitOnMachine, before: Option<&'a UnitStatus>) -> Option<Failure<'a>> {
    let mut machines = before?.machines.iter();
    failure(machines.find(|then| then.machine_id == unit.machine_id)?)
}

impl Waiting<'_> {
    /// Waits for all `units`. Ends early if one of them is stuck. Fails with [`NoMachine`] if all
    /// stuck ones belong on no machine.
    pub(crate) async fn run(&self, client: &mut Client, units: &[UnitName]) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.timeout;
        let mut shown: BTreeMap<&UnitName, String> = BTreeMap::new();
        let passes = match self.goal {
            Goal::Ready | Goal::Active => &[Duration::ZERO, STEADY][..],
            Goal::Gone => &[Duration::ZERO],
        };
        for pause in passes {
            tokio::time::sleep(*pause).await;
            let mut ends = Vec::new();
            for name in units {
                let line = ProgressLine::after(shown.entry(name).or_default());
                ends.push(match self.goal {
                    Goal::Gone => self.one_gone(client, name, deadline, line).await?,
                    _ => self.one(client, name, deadline, line).await?,
                });
            }
            if ends.contains(&End::NoMachine) && !ends.contains(&End::Short) {
                return Err(NoMachine.into());
            }
            if ends.iter().any(|end| *end != End::There) {
                bail!(
                    "not every unit is {}; `fleetctl status UNIT` shows the progress, `fleetctl journal UNIT` the logs",
                    self.goal.word()
                );
            }
        }
        Ok(())
    }

    async fn one(
        &self,
        client: &mut Client,
        name: &UnitName,
        deadline: Instant,
        mut line: ProgressLine<'_>,
    ) -> anyhow::Result<End> {
        let mut settled = false;
        // The first request does not wait, so a unit whose turn comes after the deadline is judged
        // too.
        let mut answer = client.unit_status(name.as_str(), None).await?;
        let first = answer.clone();
        let before = self.before.get(name);
        let last = before.or(first.as_ref()).and_then(|it| it.last.as_ref());
        loop {
            let Some(status) = answer else {
                drop(line);
                talk(format_args!("{name}: destroyed meanwhile"));
                return Ok(End::Short);
            };
            let launched = status.desired_state == TargetState::Launched.as_str();
            if self.started && !launched {
                drop(line);
                talk(format_args!(
                    "{name}: its target state was set to {} meanwhile",
                    status.desired_state
                ));
                return Ok(End::Short);
            }
            if self.started
                && let Some(why) = went_back(&status, last)
            {
                drop(line);
                talk(format_args!("{name}: {why}"));
                self.complain(&status);
                return Ok(End::Short);
            }
            if let Some(why) = no_machine(&status).filter(|_| launched) {
                drop(line);
                talk(format_args!("{name}: {why}"));
                return Ok(End::NoMachine);
            }
            let progress = judge(self.goal, &status, before);
            line.show(&match progress.placed {
                _ if !launched => format!("{name}: {}, not started yet", status.desired_state),
                0 if status.machines.is_empty() => format!("{name}: no machine is online"),
                0 => format!("{name}: every machine of it is cordoned, and takes no update"),
                placed => format!("{name}: {}/{placed} {}", progress.there, self.goal.word()),
            });
            match progress.verdict {
                Verdict::There => return Ok(End::There),
                // If it fails on one machine, it is likely to fail on others soon. One message
                // names them all.
                Verdict::Stuck if !settled => {
                    settled = true;
                    tokio::time::sleep(STEADY).await;
                    answer = client.unit_status(name.as_str(), None).await?;
                    continue;
                }
                Verdict::Stuck => {
                    drop(line);
                    self.complain(&status);
                    return Ok(End::Short);
                }
                Verdict::Moving => {}
            }
            let next = async {
                tokio::time::sleep(PAUSE).await;
                client
                    .unit_status(name.as_str(), Some(status.registry_revision))
                    .await
            };
            answer = match tokio::time::timeout_at(deadline, next).await {
                Ok(answer) => answer?,
                Err(_elapsed) => {
                    drop(line);
                    self.late(name);
                    self.complain(&status);
                    return Ok(End::Short);
                }
            };
        }
    }

    /// Waits until the registry has no such unit, and no machine reports it any more.
    async fn one_gone(
        &self,
        client: &mut Client,
        name: &UnitName,
        deadline: Instant,
        mut line: ProgressLine<'_>,
    ) -> anyhow::Result<End> {
        let mut after = None;
        loop {
            let look = async {
                if let Some(status) = client.unit_status(name.as_str(), after).await? {
                    after = Some(status.registry_revision);
                    return Ok(Some("still in the registry".to_owned()));
                }
                after = None;
                let machines = client.machines_with(name).await?;
                Ok::<_, ClientError>(
                    (machines > 0).then(|| format!("still on {machines} machines")),
                )
            };
            match tokio::time::timeout_at(deadline, look).await {
                Ok(answer) => match answer? {
                    Some(why) => line.show(&format!("{name}: {why}")),
                    None => return Ok(End::There),
                },
                Err(_elapsed) => {
                    drop(line);
                    self.late(name);
                    return Ok(End::Short);
                }
            }
            // No long poll reports when the last machine has removed it.
            tokio::time::sleep(PAUSE_GONE).await;
        }
    }

    fn late(&self, name: &UnitName) {
        talk(format_args!(
            "{name}: not {} after {}",
            self.goal.word(),
            humantime::format_duration(self.timeout)
        ));
    }

    /// Prints one line on stderr for each machine that lacks the wanted state.
    fn complain(&self, status: &UnitStatus) {
        for unit in &status.machines {
            if unit.placed && !is_there(self.goal, unit, status) {
                talk(format_args!(
                    "{}: not {} on {}: {}",
                    status.name,
                    self.goal.word(),
                    describe::machine(&unit.machine_id, &unit.primary_ip, false),
                    describe::shortfall(unit, status.newest())
                ));
            }
        }
    }
}

/// The progress on stderr: rewritten in place on a terminal, else a new line for each change.
struct ProgressLine<'a> {
    shown: &'a mut String,
    open: bool,
}

impl<'a> ProgressLine<'a> {
    /// Returns a line that is not printed while it equals the last one printed.
    fn after(shown: &'a mut String) -> Self {
        Self { shown, open: false }
    }

    fn show(&mut self, text: &str) {
        if self.shown == text {
            return;
        }
        text.clone_into(self.shown);
        self.open = true;
        let mut stderr = io::stderr();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K{text}");
        } else {
            talk(text);
        }
    }
}

/// Ends the line, so that the next message starts a new one.
impl Drop for ProgressLine<'_> {
    fn drop(&mut self) {
        if io::stderr().is_terminal() && self.open {
            talk("");
        }
    }
}

#[cfg(test)]
mod tests;
