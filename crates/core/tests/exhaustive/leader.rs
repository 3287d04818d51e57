//! The leader: it sees the registry, decides with the real step, and commits that, guarded as the
//! engine guards it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use fleet_core::machine::MachineId;
use fleet_core::record::{self, Grant, UnitRecord, UnitReport};
use fleet_core::rollout::{OnMachine, Presence, Situation, Step, Transition, step};
use fleet_core::unit::{MaxUnavailable, Policy};

use super::machine::{Granted, Shown, State};
use super::model::{Broken, Fleet};
use super::world::{CREATED, DEADLINE, MACHINES, Progress, Record, World, Wrong};

/// What becomes of the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    Promote,
    RollBack,
    Pause,
    EndRollback,
}

/// A commit. Its grants are with the machines ([`Machine::late_grant`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Commit {
    /// Whether its guards still hold: the claim, the unit's record, and the rollout's key.
    pub(crate) is_of_leader: bool,
    pub(crate) is_of_record: bool,
    is_of_rollout: bool,
    change: Option<Change>,
    /// What the rollout's key is to be.
    progress: Option<Progress>,
}

impl World {
    /// The leader decides, and its commit lands at once.
    pub(crate) fn leads(&mut self, fleet: &Fleet, order: [usize; MACHINES]) -> Option<()> {
        let (commit, grants) = self.decides(fleet, order)?;
        self.writes(commit, grants);
        Some(())
    }

    /// The same, and the commit lands later, or never.
    pub(crate) fn leads_unanswered(
        &mut self,
        fleet: &Fleet,
        order: [usize; MACHINES],
    ) -> Option<()> {
        if self.late.is_some() {
            return None;
        }
        let (commit, grants) = self.decides(fleet, order)?;
        self.late = Some(commit);
        for (machine, grant) in self.machines.iter_mut().zip(grants) {
            machine.late_grant = grant;
        }
        Some(())
    }

    /// What was sent long ago reaches the registry.
    pub(crate) fn lands(&mut self, fleet: &Fleet) -> Option<()> {
        let commit = self.late.take()?;
        let grants = std::array::from_fn(|at| self.machines[at].late_grant.take());
        let is_guarded = |guard| fleet.broken != Some(guard);
        let holds = (commit.is_of_leader || !is_guarded(Broken::ClaimGuard))
            && (commit.is_of_record || !is_guarded(Broken::UnitGuard))
            && commit.is_of_rollout;
        if holds {
            if !commit.is_of_leader || !commit.is_of_record {
                self.wrong = Some(Wrong::Stale);
            }
            self.writes(commit, grants);
        }
        Some(())
    }

    fn writes(&mut self, commit: Commit, grants: [Option<Granted>; MACHINES]) {
        for (machine, grant) in self.machines.iter_mut().zip(grants) {
            let number = machine.shown.grant.map_or(0, |it| it.number) + 1;
            let grant = grant.map(|grant| Granted { number, ..grant });
            machine.shown.grant = grant.or(machine.shown.grant);
        }
        self.progress = commit.progress;
        // One that was late was decided from the rollout's key as it was.
        if let Some(late) = &mut self.late {
            late.is_of_rollout = false;
        }
        if let Some(change) = commit.change {
            self.changes(change);
        }
    }

    fn changes(&mut self, change: Change) {
        if change == Change::Promote && !self.is_proved {
            self.wrong = Some(Wrong::Unproved);
        }
        let outcome = |ended| record::Outcome {
            revision: 0,
            ended,
            reason: String::new(),
            at: 0,
        };
        let transition = match change {
            Change::Promote => Transition::Promote(outcome(fleet_core::rollout::Ended::Done)),
            Change::RollBack => Transition::RollBack(String::new()),
            Change::Pause => Transition::Pause(String::new(), Vec::new()),
            Change::EndRollback => {
                Transition::EndRollback(outcome(fleet_core::rollout::Ended::RolledBack))
            }
        };
        if let Some(changed) = transition.make(&self.record.full(), 0) {
            self.takes(&changed.record);
        }
    }

    /// What the leader commits now; none if it has nothing to do.
    fn decides(&self, fleet: &Fleet, order: [usize; MACHINES]) -> Option<Decision> {
        let view = View {
            record: self.record,
            progress: self.progress,
            machines: order.map(|at| self.machines[at].shown),
            tick: self.tick,
            since: self.since,
            awaits: self.awaits,
        };
        let decided = view.decided(fleet)?;
        let mut grants = [None; MACHINES];
        for (at, grant) in order.into_iter().zip(decided.1) {
            grants[at] = grant;
        }
        Some((decided.0, grants))
    }
}

/// What the leader sees, with the machines in the order in which it looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct View {
    record: Record,
    progress: Option<Progress>,
    machines: [Shown; MACHINES],
    tick: u8,
    since: u8,
    awaits: bool,
}

/// A commit and its grants, by machine.
pub(crate) type Decision = (Commit, [Option<Granted>; MACHINES]);

/// What was decided about each view. The step is pure, so it is asked once.
pub(crate) type Decided = Mutex<BTreeMap<View, Option<Decision>>>;

impl View {
    fn decided(self, fleet: &Fleet) -> Option<Decision> {
        let known = fleet
            .decided
            .lock()
            .expect("no test panicked")
            .get(&self)
            .copied();
        known.unwrap_or_else(|| {
            let decided = self.decides(fleet);
            fleet
                .decided
                .lock()
                .expect("no test panicked")
                .insert(self, decided);
            decided
        })
    }

    fn decides(&self, fleet: &Fleet) -> Option<Decision> {
        let step = self.step(fleet);
        let writes = step.change.is_some() || step.progress.is_some();
        if !writes && step.grants.is_empty() && step.proofs.is_empty() {
            return None;
        }
        let mut grants = [None; MACHINES];
        for to in step.grants.iter().chain(&step.proofs) {
            let at = (0..MACHINES).find(|at| id(*at) == to.machine)?;
            grants[at] = Some(granted(&to.grant));
        }
        let change = step.change.as_ref().map(|change| match change {
            Transition::Promote(_) => Change::Promote,
            Transition::RollBack(_) => Change::RollBack,
            Transition::Pause(..) => Change::Pause,
            Transition::EndRollback(_) => Change::EndRollback,
        });
        let ends = matches!(change, Some(Change::Promote | Change::EndRollback));
        let newest = self.record.candidate.map_or(self.record.stable, |it| it.0);
        let current = self.progress.filter(|it| it.revision == newest);
        let first = Progress {
            revision: newest,
            done: 0,
            tick: self.tick,
        };
        let progress = step.progress.map(|it| Progress {
            revision: small(it.revision),
            done: u8::try_from(it.done).expect("small"),
            tick: small(it.at / DEADLINE),
        });
        let commit = Commit {
            is_of_leader: true,
            is_of_record: true,
            is_of_rollout: true,
            change,
            progress: progress.or(current).or(Some(first)).filter(|_| !ends),
        };
        Some((commit, grants))
    }

    fn step(&self, fleet: &Fleet) -> Step {
        let record: UnitRecord = self.record.full();
        let ids: [MachineId; MACHINES] = std::array::from_fn(id);
        let reports = self.machines.map(|it| said(fleet, &it));
        let grants = self.machines.map(|it| it.grant.map(grant));
        let progress = self.progress.map(|it| record::Progress {
            unit: CREATED,
            revision: it.revision.into(),
            done: it.done.into(),
            at: millis(it.tick),
        });
        let machines = std::array::from_fn::<_, MACHINES, _>(|at| {
            let machine = &self.machines[at];
            let is_forgotten =
                fleet.broken == Some(Broken::LostMachines) && machine.presence.is_none();
            OnMachine {
                id: &ids[at],
                leaves: None,
                presence: match machine.presence {
                    Some(session) => Presence::Live(session.into()),
                    None if self.awaits => Presence::Awaited(millis(self.tick + 1)),
                    None => Presence::Offline(Some(millis(machine.offline_since))),
                },
                cordoned: machine.cordoned,
                grant: grants[at]
                    .as_ref()
                    .map(|(grant, number)| (grant, *number))
                    .filter(|_| !is_forgotten),
                report: Some(&reports[at]).filter(|_| machine.presence.is_some()),
                problem: None,
                unknown: None,
            }
        });
        let budget = if fleet.broken == Some(Broken::Budget) {
            2
        } else {
            1
        };
        step(&Situation {
            record: &record,
            min_ready: Duration::ZERO,
            created: CREATED,
            policy: Policy {
                max_unavailable: MaxUnavailable::Machines(budget),
                progress_deadline: Duration::from_millis(DEADLINE),
                ..Policy::default()
            },
            progress: progress.as_ref(),
            machines: machines.into(),
            now: millis(self.tick),
            since: millis(self.since),
        })
    }
}

fn id(at: usize) -> MachineId {
    MachineId::parse(&format!("{at:032x}")).expect("an id")
}

fn millis(tick: u8) -> u64 {
    u64::from(tick) * DEADLINE
}

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("small")
}

fn grant(given: Granted) -> (Grant, u64) {
    let grant = Grant {
        unit: CREATED,
        revision: given.revision.into(),
        session: given.session.into(),
        was_available: given.was_available,
        proved: given.proved,
        leaves: false,
    };
    (grant, given.number.into())
}

/// Its number is given when it lands.
fn granted(grant: &Grant) -> Granted {
    Granted {
        revision: small(grant.revision),
        session: u8::try_from(grant.session).expect("small"),
        was_available: grant.was_available,
        proved: grant.proved,
        number: 0,
    }
}

fn said(fleet: &Fleet, machine: &Shown) -> UnitReport {
    let told = machine.report;
    let is_up = told.state == State::Up || fleet.broken == Some(Broken::Proof);
    UnitReport {
        revision: told.revision.into(),
        launched: true,
        ready: is_up,
        available: is_up,
        settled: told.settled,
        failed: (told.state == State::Down).then(|| "failed".to_owned()),
        deferred: told.deferred,
        grant: told.grant.into(),
        ..UnitReport::default()
    }
}
