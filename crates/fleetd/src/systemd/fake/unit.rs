//! One unit of the fake: what its file makes it do, and how far it has come.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::systemd::State;
use fleet_core::unit::{Content, UnitKind};
use tokio::time::Instant;

use crate::systemd::{Details, Ended, JobResult};

/// How a unit's start ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is active from then on.
    Active,
    /// It failed.
    Fail,
    /// It did its work and is inactive again, as a oneshot is.
    ExitOk,
    /// It is not started at all: a condition in its file is not met.
    Skip,
    /// Its start job ends with this result, and it is not started.
    NotStarted(&'static str),
}

/// What a unit does when it is started and stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long a start takes.
    pub start: Duration,
    /// How it ends.
    pub result: Outcome,
    /// How long a stop takes.
    pub stop: Duration,
    /// It fails after having been active for so long.
    pub crash_after: Option<Duration>,
    /// What failed is started again after so long (`Restart=on-failure`).
    pub restart_after: Option<Duration>,
}

impl Behaviour {
    /// What a unit file asks for: `ConditionPathExists=!/` is never met, a oneshot exits unless it
    /// remains, `/bin/false` fails, and is started again with `Restart=on-failure`; all else
    /// becomes active.
    pub fn of(content: &Content) -> Self {
        let text = content.to_text();
        let has = |line: &str| text.lines().any(|other| other.trim() == line);
        let result = if has("ConditionPathExists=!/") || has("ExecCondition=/bin/false") {
            Outcome::Skip
        } else if has("AssertPathExists=!/") {
            Outcome::NotStarted("assert")
        } else if has("Requires=never.service") {
            Outcome::NotStarted("dependency")
        } else if has("ExecStart=/bin/false") {
            Outcome::Fail
        } else if has("Type=oneshot") && !has("RemainAfterExit=yes") {
            Outcome::ExitOk
        } else {
            Outcome::Active
        };
        Self {
            start: Duration::from_millis(20),
            result,
            stop: Duration::from_millis(10),
            crash_after: None,
            restart_after: has("Restart=on-failure").then_some(Duration::from_millis(100)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Inactive,
    Activating,
    Active,
    Deactivating,
    Failed,
    /// Failed, and about to be started again.
    AutoRestart,
}

/// A unit that systemd has loaded.
pub(super) struct Unit {
    kind: UnitKind,
    definition: Content,
    phase: Phase,
    since: Instant,
    run_since: Option<Instant>,
    skipped: bool,
    active_since: Option<Instant>,
    restarts: u32,
    job: Option<&'static str>,
    /// How its last job ended, until that is told.
    ended: Option<Ended>,
    /// Whether systemd has found no file of it in a reload.
    lost: bool,
    /// Whether no stop ends it.
    busy: bool,
    /// What the next start does; set when a job is taken.
    behaviour: Behaviour,
    /// When the phase ends by itself.
    ends: Option<Instant>,
}

impl Unit {
    pub(super) fn new(kind: UnitKind, definition: Content, booted: Instant) -> Self {
        Self {
            kind,
            behaviour: Behaviour::of(&definition),
            definition,
            phase: Phase::Inactive,
            since: booted,
            run_since: None,
            skipped: false,
            active_since: None,
            restarts: 0,
            job: None,
            ended: None,
            lost: false,
            busy: false,
            ends: None,
        }
    }

    /// The file as systemd read it last.
    pub(super) fn definition(&self) -> &Content {
        &self.definition
    }

    /// systemd read the file again.
    pub(super) fn define(&mut self, definition: Content) {
        self.definition = definition;
        self.lost = false;
    }

    /// systemd has found no file of it any more.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    /// Whether that was so.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// From now on stops fail, or do not any more.
    pub(super) fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
    }

    /// How its last job ended; told once.
    pub(super) fn take_end(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    fn end(&mut self, was_stop: bool, result: &str) {
        self.job = None;
        let result = JobResult::from(result.to_owned());
        self.ended = Some(Ended { was_stop, result });
    }

    /// Whether systemd keeps it.
    pub(super) fn lives(&self) -> bool {
        // One whose start was skipped is kept for fleet.
        self.phase != Phase::Inactive || self.skipped
    }

    /// Whether systemd says `active` of it.
    pub(super) fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// Whether it runs on through a soft reboot.
    pub(super) fn survives(&self) -> bool {
        let text = self.definition.to_text();
        self.is_active() && text.contains("SurviveFinalKillSignal=yes")
    }

    /// Whatever it did, it does no more.
    pub(super) fn power_off(&mut self) {
        self.phase = Phase::Inactive;
    }

    /// When it changes next by itself.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ends
    }

    pub(super) fn start(&mut self, behaviour: Behaviour, now: Instant) {
        self.restarts = 0;
        match self.phase {
            Phase::Activating => {}
            Phase::Active => self.end(false, "done"),
            // The start waits for the stop.
            Phase::Deactivating => {
                self.behaviour = behaviour;
                self.job = Some("start");
            }
            Phase::Inactive | Phase::Failed | Phase::AutoRestart => {
                self.behaviour = behaviour;
                self.begin(now);
            }
        }
    }

    pub(super) fn restart(&mut self, behaviour: Behaviour, now: Instant) {
        match self.phase {
            Phase::Inactive | Phase::Failed | Phase::AutoRestart => self.start(behaviour, now),
            Phase::Activating | Phase::Active | Phase::Deactivating => {
                self.stop(behaviour, now);
                self.behaviour = behaviour;
                self.restarts = 0;
                self.job = Some("restart");
            }
        }
    }

    pub(super) fn stop(&mut self, _next: Behaviour, now: Instant) {
        if matches!(self.phase, Phase::Activating | Phase::Active) {
            let ends = now + self.behaviour.stop;
            self.enter(Phase::Deactivating, now, Some(ends));
        } else if self.phase == Phase::AutoRestart {
            self.enter(Phase::Inactive, now, None);
        }
        match self.phase {
            Phase::Deactivating => self.job = Some("stop"),
            _ => self.end(true, "done"),
        }
    }

    pub(super) fn crash(&mut self, now: Instant) {
        if self.phase == Phase::Active {
            self.fail(now);
        }
    }

    fn fail(&mut self, now: Instant) {
        match self.behaviour.restart_after {
            Some(after) => self.enter(Phase::AutoRestart, now, Some(now + after)),
            None => self.enter(Phase::Failed, now, None),
        }
    }

    /// What `systemctl reset-failed` does.
    pub(super) fn forget_failure(&mut self) {
        if self.phase == Phase::Failed {
            self.phase = Phase::Inactive;
        }
    }

    /// Makes all transitions that are due; answers whether there were any.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(at) = self.ends.filter(|at| *at <= now) {
            moved = true;
            match self.phase {
                Phase::Activating => {
                    let has_failed = self.behaviour.result == Outcome::Fail;
                    self.end(false, if has_failed { "failed" } else { "done" });
                    match self.behaviour.result {
                        Outcome::Active => {
                            self.active_since = Some(at);
                            let crash = self.behaviour.crash_after.map(|after| at + after);
                            self.enter(Phase::Active, at, crash);
                        }
                        Outcome::Fail => self.fail(at),
                        Outcome::ExitOk | Outcome::Skip | Outcome::NotStarted(_) => {
                            self.enter(Phase::Inactive, at, None)
                        }
                    }
                }
                Phase::Deactivating if self.busy => {
                    self.end(self.job == Some("stop"), "failed");
                    self.enter(Phase::Active, at, None);
                }
                Phase::Deactivating if self.job == Some("stop") => {
                    self.end(true, "done");
                    self.enter(Phase::Inactive, at, None);
                }
                Phase::Deactivating => self.begin(at),
                Phase::Active => self.fail(at),
                Phase::AutoRestart => {
                    self.restarts += 1;
                    self.begin(at);
                }
                Phase::Inactive | Phase::Failed => self.ends = None,
            }
        }
        moved
    }

    fn begin(&mut self, now: Instant) {
        self.skipped = self.behaviour.result == Outcome::Skip;
        if let Outcome::NotStarted(result) = self.behaviour.result {
            self.end(false, result);
            return self.enter(Phase::Inactive, now, None);
        }
        if self.skipped {
            self.end(false, "done");
            return self.enter(Phase::Inactive, now, None);
        }
        self.run_since = Some(now);
        self.job = Some("start");
        let ends = now + self.behaviour.start;
        self.enter(Phase::Activating, now, Some(ends));
    }

    fn enter(&mut self, phase: Phase, at: Instant, ends: Option<Instant>) {
        self.phase = phase;
        self.since = at;
        self.ends = ends;
    }

    pub(super) fn state(&self) -> State {
        let (active, sub) = match self.phase {
            Phase::Inactive => ("inactive", "dead"),
            Phase::Activating => ("activating", "start"),
            Phase::Active => ("active", self.active_sub()),
            Phase::Deactivating => ("deactivating", "stop"),
            Phase::Failed => ("failed", "failed"),
            Phase::AutoRestart => ("activating", "auto-restart"),
        };
        State {
            load: if self.lost { "not-found" } else { "loaded" }.to_owned(),
            active: active.to_owned(),
            sub: sub.to_owned(),
            job: self.job.map(str::to_owned),
        }
    }

    fn active_sub(&self) -> &'static str {
        match self.kind {
            UnitKind::Service if self.definition.to_text().contains("RemainAfterExit=yes") => {
                "exited"
            }
            UnitKind::Service | UnitKind::Scope => "running",
            UnitKind::Socket => "listening",
            UnitKind::Timer | UnitKind::Path | UnitKind::Automount => "waiting",
            UnitKind::Mount => "mounted",
            UnitKind::Device => "plugged",
            _ => "active",
        }
    }

    /// `time` turns a moment into milliseconds since 1970.
    pub(super) fn details(&self, time: impl Fn(Instant) -> u64) -> Details {
        let result = match (self.kind, self.phase) {
            (UnitKind::Target | UnitKind::Slice | UnitKind::Device, _) => "",
            (UnitKind::Service, Phase::Failed | Phase::AutoRestart) => "exit-code",
            (_, Phase::Failed) => "resources",
            _ => "success",
        };
        let run = self.run_since.map(&time);
        Details {
            since: run.map_or(0, |_| time(self.since)),
            active_since: self.active_since,
            restarts: self.restarts,
            result: result.to_owned(),
            run: run.map(|at| at.to_string()).unwrap_or_default(),
            skipped: self.skipped,
            members: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHAVIOUR: Behaviour = Behaviour {
        start: Duration::from_secs(3),
        result: Outcome::Active,
        stop: Duration::from_secs(2),
        crash_after: Some(Duration::from_secs(10)),
        restart_after: None,
    };

    /// The unit's active state at each of these seconds after its start.
    fn course(behaviour: Behaviour, seconds: &[u64]) -> Vec<String> {
        let zero = Instant::now();
        let mut unit = Unit::new(UnitKind::Service, Content::from(""), zero);
        unit.start(behaviour, zero);
        let mut state = |second: &u64| {
            unit.advance(zero + Duration::from_secs(*second));
            unit.state().active
        };
        seconds.iter().map(&mut state).collect()
    }

    #[test]
    fn start_takes_its_time_and_crash_comes_when_asked_for() {
        assert_eq!(
            course(BEHAVIOUR, &[2, 3, 12, 13]),
            ["activating", "active", "active", "failed"]
        );
    }

    #[test]
    fn what_crashes_is_started_again_if_it_asks_for_that() {
        let behaviour = Behaviour {
            restart_after: Some(Duration::from_secs(5)),
            ..BEHAVIOUR
        };
        assert_eq!(
            course(behaviour, &[12, 13, 18, 21, 31]),
            ["active", "activating", "activating", "active", "activating"]
        );
    }

    #[test]
    fn a_long_sleep_misses_no_transition() {
        assert_eq!(course(BEHAVIOUR, &[100]), ["failed"]);
        let oneshot = Behaviour {
            result: Outcome::ExitOk,
            ..BEHAVIOUR
        };
        assert_eq!(course(oneshot, &[100]), ["inactive"]);
    }

    #[test]
    fn a_start_during_a_stop_follows_it() {
        let zero = Instant::now();
        let at = |second| zero + Duration::from_secs(second);
        let mut unit = Unit::new(UnitKind::Service, Content::from(""), zero);
        unit.start(BEHAVIOUR, zero);
        unit.advance(at(3));
        unit.stop(BEHAVIOUR, at(4));
        unit.start(BEHAVIOUR, at(5));
        assert_eq!(unit.state().active, "deactivating");
        unit.advance(at(6));
        assert_eq!(unit.state().active, "activating");
        unit.advance(at(9));
        assert_eq!(unit.state().active, "active");
    }
}
