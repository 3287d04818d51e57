//! One machine: what the registry has of it, what its agent knows and does, and what is true of it.

use std::collections::BTreeSet;

use fleet_core::record::{Candidate, Revision, UnitRecord};
use fleet_core::rollout::{self, Choice, Present, choose, confirms};
use fleet_core::unit::TargetState;

use super::model::{Fleet, Nature};
use super::world::{Phase, Record, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum State {
    Up,
    Starting,
    Down,
}

/// A grant as the registry has it. `number` stands for the store revision that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Granted {
    pub(crate) revision: u8,
    pub(crate) session: u8,
    pub(crate) was_available: bool,
    pub(crate) proved: bool,
    pub(crate) number: u8,
}

/// What a machine says of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Told {
    pub(crate) revision: u8,
    pub(crate) state: State,
    pub(crate) settled: bool,
    pub(crate) deferred: bool,
    pub(crate) grant: u8,
}

/// What the registry says of a machine: all that a leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Shown {
    /// Its session.
    pub(crate) presence: Option<u8>,
    pub(crate) offline_since: u8,
    pub(crate) cordoned: bool,
    pub(crate) report: Told,
    pub(crate) grant: Option<Granted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Machine {
    pub(crate) shown: Shown,
    /// Of the commit that may still land.
    pub(crate) late_grant: Option<Granted>,
    /// Whether the machine reaches the registry.
    reaches: bool,
    is_on: bool,
    session: u8,
    knows: (u8, Option<u8>),
    heard: Option<Granted>,
    has: u8,
    state: State,
    settled: bool,
    confirmed: u8,
    /// An update took it down, and it has not reported since that it is available.
    taken_down: bool,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            shown: Shown {
                presence: Some(1),
                offline_since: 0,
                cordoned: false,
                report: Told {
                    revision: 1,
                    state: State::Up,
                    settled: true,
                    deferred: false,
                    grant: 0,
                },
                grant: None,
            },
            late_grant: None,
            reaches: true,
            is_on: true,
            session: 1,
            knows: (1, None),
            heard: None,
            has: 1,
            state: State::Up,
            settled: true,
            confirmed: 0,
            taken_down: false,
        }
    }

    /// Whether an update made it unavailable. A machine that cannot be reached is.
    pub(crate) fn is_taken_down(&self) -> bool {
        self.taken_down && !(self.state == State::Up && self.reaches)
    }

    /// A person who cordons a machine answers for it. One that is offline counts until the
    /// deadline, for the revision that it was granted: a newer update does not answer for machines
    /// that the one before cut off.
    pub(crate) fn is_forgiven(&self, world: &World) -> bool {
        let is_over = world.tick > self.shown.offline_since;
        let candidate = world.record.candidate.map(|it| it.0);
        let is_of_another = self.shown.grant.map(|it| it.revision) != candidate;
        self.shown.cordoned || self.shown.presence.is_none() && (is_over || is_of_another)
    }

    pub(crate) fn comes(&mut self, nature: Nature) -> Option<()> {
        if self.state != State::Starting {
            return None;
        }
        self.state = State::Up;
        // Revision 1 works.
        match nature {
            Nature::Fails if self.has > 1 => self.state = State::Down,
            Nature::CutsOff if self.has > 1 => self.reaches = false,
            _ => {}
        }
        Some(())
    }

    pub(crate) fn settles(&mut self) {
        self.settled |= self.state == State::Up;
    }

    pub(crate) fn crashes(&mut self) -> Option<()> {
        (self.state == State::Up).then(|| self.state = State::Down)
    }

    pub(crate) fn is_cut_off(&mut self) -> Option<()> {
        std::mem::take(&mut self.reaches).then_some(())
    }

    pub(crate) fn goes_down(&mut self) -> Option<()> {
        self.reaches = false;
        self.state = State::Down;
        self.settled = false;
        std::mem::take(&mut self.is_on).then_some(())
    }

    pub(crate) fn expires(&mut self, tick: u8) -> Option<()> {
        if self.reaches || self.shown.presence.is_none() {
            return None;
        }
        self.shown.presence = None;
        self.shown.offline_since = tick;
        Some(())
    }

    /// The agent makes of what it knows what an agent makes of it.
    fn acts(&mut self) {
        let record = self.known();
        let valid = self.heard.filter(|it| it.session == self.session);
        let process = self.has.to_string();
        let present = Present {
            revision: self.has.into(),
            process: &process,
            launched: true,
        };
        let stable = record.stable.number.to_string();
        let granted = valid.map(|it| u64::from(it.revision));
        let goes_to = match choose(&record, granted, Some(present), &stable) {
            Choice::Stable => self.knows.0,
            Choice::Candidate => self.knows.1.unwrap_or(self.knows.0),
            Choice::Keep => self.has,
        };
        if let Some(grant) = valid.filter(|it| confirms(&record, it.revision.into())) {
            self.confirmed = grant.number;
        }
        if goes_to != self.has {
            self.has = goes_to;
            // One that was down when it was granted the revision is not charged to the update,
            // though it came up since.
            let was_up = self.state == State::Up && self.shown.report.state == State::Up;
            self.taken_down |= was_up && valid.is_none_or(|it| it.was_available);
            self.state = State::Starting;
            self.settled = false;
        }
    }

    fn known(&self) -> UnitRecord {
        let (stable, candidate) = self.knows;
        let phase = Phase::Rolling;
        let record = Record {
            stable,
            candidate: candidate.map(|number| (number, phase)),
            newest: candidate.unwrap_or(stable),
        };
        record.full()
    }

    fn tells(&self) -> Told {
        let (stable, candidate) = self.knows;
        Told {
            revision: self.has,
            state: self.state,
            settled: self.settled,
            deferred: self.has != stable && Some(self.has) != candidate,
            grant: self.confirmed,
        }
    }
}

impl World {
    pub(crate) fn hears_unit(&mut self, at: usize) -> Option<()> {
        let news = self.record.known();
        let machine = &mut self.machines[at];
        if !machine.reaches || machine.knows == news {
            return None;
        }
        machine.knows = news;
        machine.acts();
        Some(())
    }

    pub(crate) fn hears_grant(&mut self, at: usize) -> Option<()> {
        let machine = &mut self.machines[at];
        if !machine.reaches || machine.heard == machine.shown.grant {
            return None;
        }
        machine.heard = machine.shown.grant;
        machine.acts();
        Some(())
    }

    pub(crate) fn reports(&mut self, at: usize) -> Option<()> {
        let candidate = self.record.candidate.map(|it| it.0);
        let machine = &mut self.machines[at];
        let told = machine.tells();
        if !machine.reaches || told == machine.shown.report {
            return None;
        }
        machine.shown.report = told;
        if told.state == State::Up {
            machine.taken_down = false;
            self.is_proved |= Some(told.revision) == candidate;
        }
        Some(())
    }

    /// A machine reaches the registry again, and sees all of it. One that was down starts what it
    /// had.
    pub(crate) fn returns(&mut self, fleet: &Fleet, at: usize) -> Option<()> {
        let news = self.record.known();
        let machine = &mut self.machines[at];
        let is_cut_off_for_good = fleet.nature == Nature::CutsOff && machine.has > 1;
        if machine.reaches || is_cut_off_for_good && machine.is_on {
            return None;
        }
        machine.reaches = true;
        if machine.shown.presence.is_none() || !machine.is_on {
            machine.session += 1;
            // What an update did to it before is not of this presence.
            machine.taken_down = false;
            machine.shown.presence = Some(machine.session);
        }
        if !machine.is_on {
            machine.is_on = true;
            machine.state = State::Starting;
        }
        machine.knows = news;
        machine.heard = machine.shown.grant;
        machine.acts();
        // A session begins with one commit of both.
        machine.shown.report = machine.tells();
        let told = machine.shown.report;
        if told.state == State::Up {
            machine.taken_down = false;
            let candidate = self.record.candidate.map(|it| it.0);
            self.is_proved |= Some(told.revision) == candidate;
        }
        Some(())
    }
}

impl Record {
    /// What an agent takes from it.
    fn known(&self) -> (u8, Option<u8>) {
        (self.stable, self.candidate.map(|it| it.0))
    }

    /// As the product has it.
    pub(crate) fn full(&self) -> UnitRecord {
        let revision = |number: u8| Revision {
            number: number.into(),
            at: 0,
            content: format!("[Service]\nExecStart=/{number}\n").as_str().into(),
            restarts: 0,
        };
        let candidate = self.candidate.map(|(number, phase)| Candidate {
            revision: revision(number),
            phase: phase.into(),
            reason: String::new(),
            since: 0,
            failed_on: BTreeSet::new(),
        });
        UnitRecord {
            target: TargetState::Launched,
            stable: revision(self.stable),
            candidate,
            last: None,
            owners: BTreeSet::new(),
        }
    }
}

impl From<Phase> for rollout::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Rolling => Self::Rolling,
            Phase::Paused => Self::Paused,
            Phase::RollingBack => Self::RollingBack,
        }
    }
}
