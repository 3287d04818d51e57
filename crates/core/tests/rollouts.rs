//! Random histories of rollouts against `choose` and `step`. Agents and leader see everything late,
//! machines are cut off and return, leaders change, and operators change their minds. At every
//! instant, an update makes at most the budget of machines unavailable. In the end every machine
//! has the revision that it should have.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use fleet_core::machine::MachineId;
use fleet_core::record::{Candidate, Grant, Progress, Revision, UnitRecord, UnitReport};
use fleet_core::rollout::{
    Choice, OnMachine, Phase, Presence, Present, Situation, Step, Transition, choose, confirms,
    step,
};
use fleet_core::unit::{MaxUnavailable, Policy, TargetState};
use proptest::prelude::*;

const MACHINES: usize = 7;
const CREATED: u64 = 1;

#[derive(Clone, Debug)]
enum Op {
    /// One second passes: units that start may become active.
    Tick,
    /// A machine receives the next change of the unit, or of its grants.
    HearUnit(usize),
    HearGrant(usize),
    /// The leader receives the next report of a machine.
    HearReport(usize),
    /// The leader steps.
    Lead,
    /// Another leader takes over, and sees everything as it is in the registry.
    NewLeader,
    /// A client submits a revision that works, or one that does not.
    Submit(bool),
    Pause,
    Resume,
    Undo,
    /// The machine is cut off, and knows it. The leader learns of it with `Expire`.
    CutOff(usize),
    Expire(usize),
    Return(usize),
    /// The unit ends on a machine by itself.
    Crash(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let machine = || 0..MACHINES;
    prop_oneof![
        8 => Just(Op::Tick),
        6 => machine().prop_map(Op::HearUnit),
        8 => machine().prop_map(Op::HearGrant),
        8 => machine().prop_map(Op::HearReport),
        8 => Just(Op::Lead),
        1 => Just(Op::NewLeader),
        2 => any::<bool>().prop_map(Op::Submit),
        1 => Just(Op::Pause),
        1 => Just(Op::Resume),
        1 => Just(Op::Undo),
        1 => machine().prop_map(Op::CutOff),
        1 => machine().prop_map(Op::Expire),
        2 => machine().prop_map(Op::Return),
        1 => machine().prop_map(Op::Crash),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Up,
    Down,
}

struct Host {
    id: MachineId,
    /// The presence in the registry. `None` once it has expired.
    session: Option<i64>,
    /// When the presence expired. `None` while it exists.
    offline_since: u64,
    /// Whether the machine believes in its presence.
    believes: bool,
    knows: UnitRecord,
    unit_news: VecDeque<UnitRecord>,
    grant: Option<(Grant, u64)>,
    grant_news: VecDeque<(Grant, u64)>,
    has: u64,
    state: State,
    /// Whether the unit is up and the leader has its report. Without the report it still counts as
    /// down.
    known_up: bool,
    /// Whether an update took the unit down, and it was up before.
    taken_down: bool,
    told: UnitReport,
    report_news: VecDeque<UnitReport>,
    /// The leader's knowledge.
    report: UnitReport,
}

struct World {
    record: UnitRecord,
    bad: BTreeSet<u64>,
    policy: Policy,
    budget: usize,
    hosts: Vec<Host>,
    grants: Vec<Option<(Grant, u64)>>,
    progress: Option<Progress>,
    store: u64,
    seconds: u64,
}

fn revision(number: u64) -> Revision {
    Revision {
        number,
        at: 0,
        content: "".into(),
        restarts: 0,
    }
}

impl World {
    fn new(budget: u32) -> Self {
        let record = UnitRecord {
            target: TargetState::Launched,
            stable: revision(1),
            candidate: None,
            last: None,
            owners: BTreeSet::new(),
        };
        let report = UnitReport {
            revision: 1,
            launched: true,
            ready: true,
            available: true,
            ..UnitReport::default()
        };
        let host = |at: usize| Host {
            id: MachineId::parse(&format!("{at:032x}")).expect("valid"),
            session: Some(10),
            offline_since: 0,
            believes: true,
            knows: record.clone(),
            unit_news: VecDeque::new(),
            grant: None,
            grant_news: VecDeque::new(),
            has: 1,
            state: State::Up,
            known_up: true,
            taken_down: false,
            told: report.clone(),
            report_news: VecDeque::new(),
            report: report.clone(),
        };
        Self {
            hosts: (0..MACHINES).map(host).collect(),
            grants: vec![None; MACHINES],
            record,
            bad: BTreeSet::new(),
            policy: Policy {
                max_unavailable: MaxUnavailable::Machines(budget),
                progress_deadline: Duration::from_secs(30),
                ..Policy::default()
            },
            budget: usize::try_from(budget).expect("small"),
            progress: None,
            store: 100,
            seconds: 0,
        }
    }

    fn now(&self) -> u64 {
        self.seconds * 1000
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Tick => self.tick(),
            Op::HearUnit(at) => {
                if let Some(record) = self.hosts[at].unit_news.pop_front() {
                    self.hosts[at].knows = record;
                    self.act(at);
                }
            }
            Op::HearGrant(at) => {
                if let Some(grant) = self.hosts[at].grant_news.pop_front() {
                    self.hosts[at].grant = Some(grant);
                    self.act(at);
                }
            }
            Op::HearReport(at) => {
                let host = &mut self.hosts[at];
                if let Some(report) = host.report_news.pop_front() {
                    host.report = report;
                    host.known_up = host.report == host.told && host.state == State::Up;
                }
            }
            Op::Lead => self.lead(),
            Op::NewLeader => {
                for host in &mut self.hosts {
                    host.report_news.clear();
                    host.report = host.told.clone();
                    host.known_up = host.state == State::Up;
                }
            }
            Op::Submit(good) => {
                let number = self.record.next_number();
                if !good {
                    self.bad.insert(number);
                }
                self.candidate(number, Phase::Rolling);
            }
            Op::Pause => self.phase(Phase::Rolling, Phase::Paused),
            Op::Resume => self.phase(Phase::Paused, Phase::Rolling),
            Op::Undo => {
                self.phase(Phase::Rolling, Phase::RollingBack);
                self.phase(Phase::Paused, Phase::RollingBack);
            }
            Op::CutOff(at) => self.hosts[at].believes = false,
            Op::Expire(at) => {
                if !self.hosts[at].believes && self.hosts[at].session.is_some() {
                    self.hosts[at].session = None;
                    self.hosts[at].offline_since = self.now();
                }
            }
            Op::Return(at) => self.back(at),
            Op::Crash(at) => {
                if self.hosts[at].state == State::Up {
                    self.hosts[at].state = State::Down;
                    self.hosts[at].known_up = false;
                    self.tell(at);
                }
            }
        }
    }

    fn tick(&mut self) {
        self.seconds += 1;
        for at in 0..MACHINES {
            let bad = self.bad.contains(&self.hosts[at].has);
            let host = &mut self.hosts[at];
            if host.state == State::Starting {
                host.state = if bad { State::Down } else { State::Up };
                host.taken_down &= bad;
                self.tell(at);
            }
        }
    }

    fn candidate(&mut self, number: u64, phase: Phase) {
        self.record.candidate = Some(Candidate {
            revision: revision(number),
            phase,
            reason: String::new(),
            since: self.now(),
            failed_on: BTreeSet::new(),
        });
        self.publish();
    }

    fn phase(&mut self, from: Phase, to: Phase) {
        let now = self.now();
        if let Some(candidate) = self.record.candidate.as_mut().filter(|it| it.phase == from) {
            candidate.phase = to;
            candidate.since = now;
            self.publish();
        }
    }

    fn publish(&mut self) {
        for host in &mut self.hosts {
            host.unit_news.push_back(self.record.clone());
        }
    }

    /// Acts on the machine's knowledge, as an agent does.
    fn act(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let valid = host.grant.as_ref().filter(|(grant, _)| {
            host.believes && host.session == Some(grant.session) && grant.unit == CREATED
        });
        let granted = valid.map(|(grant, _)| grant.revision);
        let was_available = valid.map(|(grant, _)| grant.was_available);
        let process = host.has.to_string();
        let present = Present {
            revision: host.has,
            process: &process,
            launched: true,
        };
        let stable = host.knows.stable.number;
        let goes_to = match choose(&host.knows, granted, Some(present), &stable.to_string()) {
            Choice::Stable => stable,
            Choice::Candidate => host.knows.newest().number,
            Choice::Keep => host.has,
        };
        if goes_to != host.has {
            host.has = goes_to;
            // A machine that was broken at its grant does not count against the update. That holds
            // even if it recovered by itself just before it took the revision.
            let charged = was_available.unwrap_or(true);
            host.taken_down |= host.known_up && charged;
            host.known_up = false;
            host.state = State::Starting;
        }
        self.tell(at);
    }

    fn tell(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let up = host.state == State::Up;
        let known = [host.knows.stable.number, host.knows.newest().number];
        let report = UnitReport {
            revision: host.has,
            launched: true,
            ready: up,
            available: up,
            failed: (host.state == State::Down).then(|| "failed".to_owned()),
            deferred: !known.contains(&host.has),
            grant: host
                .grant
                .as_ref()
                .filter(|(grant, _)| confirms(&host.knows, grant.revision))
                .map_or(0, |(_, written)| *written),
            ..UnitReport::default()
        };
        if host.told != report {
            host.told = report.clone();
            // While cut off, it cannot report anything.
            if host.believes {
                host.report_news.push_back(report);
            }
        }
    }

    /// The machine reaches the registry again, with a new session and a full listing.
    fn back(&mut self, at: usize) {
        if self.hosts[at].session.is_some() {
            return;
        }
        self.store += 1;
        let (record, grant) = (self.record.clone(), self.grants[at].clone());
        let session = i64::try_from(self.store).expect("small");
        let host = &mut self.hosts[at];
        host.session = Some(session);
        host.believes = true;
        host.knows = record;
        host.unit_news.clear();
        host.grant = grant;
        host.grant_news.clear();
        // Effects of an update before it do not concern this presence.
        host.taken_down = false;
        self.act(at);
        let host = &mut self.hosts[at];
        host.report_news.clear();
        host.report = host.told.clone();
        host.known_up = host.state == State::Up;
    }

    fn next(&self) -> Step {
        let machines = self
            .hosts
            .iter()
            .zip(&self.grants)
            .map(|(host, grant)| OnMachine {
                id: &host.id,
                presence: match host.session {
                    Some(session) => Presence::Live(session),
                    None => Presence::Offline(Some(host.offline_since)),
                },
                cordoned: false,
                grant: grant.as_ref().map(|(grant, at)| (grant, *at)),
                report: Some(&host.report),
                problem: None,
                leaves: None,
                unknown: None,
            });
        step(&Situation {
            record: &self.record,
            created: CREATED,
            policy: self.policy,
            progress: self.progress.as_ref(),
            min_ready: Duration::ZERO,
            machines: machines.collect(),
            now: self.now(),
            since: self.record.candidate.as_ref().map_or(0, |it| it.since),
        })
    }

    fn lead(&mut self) {
        let step = self.next();
        self.progress = step.progress.or(self.progress.take());
        for to in step.grants.into_iter().chain(step.proofs) {
            self.store += 1;
            let at = self.hosts.iter().position(|host| host.id == to.machine);
            let at = at.expect("one of them");
            let grant = (to.grant, self.store);
            self.grants[at] = Some(grant.clone());
            self.hosts[at].grant_news.push_back(grant);
        }
        match step.change {
            Some(Transition::Promote(outcome)) => {
                let candidate = self.record.candidate.take().expect("one is promoted");
                self.record.stable = candidate.revision;
                self.record.last = Some(outcome);
                self.publish();
            }
            Some(Transition::EndRollback(outcome)) => {
                self.record.candidate = None;
                self.record.last = Some(outcome);
                self.publish();
            }
            Some(Transition::RollBack(_) | Transition::Pause(..)) => {
                self.phase(Phase::Rolling, Phase::RollingBack);
            }
            None => {}
        }
    }

    fn taken_down(&self) -> usize {
        let down = |host: &&Host| host.believes && host.taken_down && host.state != State::Up;
        self.hosts.iter().filter(down).count()
    }

    /// Delivers everything until nothing changes any more.
    fn calm_down(&mut self) -> Result<(), String> {
        for at in 0..MACHINES {
            self.apply(&Op::Expire(at));
            self.apply(&Op::Return(at));
        }
        self.apply(&Op::Resume);
        for _ in 0..200 {
            for at in 0..MACHINES {
                while !self.hosts[at].unit_news.is_empty() {
                    self.apply(&Op::HearUnit(at));
                }
                while !self.hosts[at].grant_news.is_empty() {
                    self.apply(&Op::HearGrant(at));
                }
                // A unit that crashed by itself is fixed.
                let bad = self.bad.contains(&self.hosts[at].has);
                if self.hosts[at].state == State::Down && !bad {
                    self.hosts[at].state = State::Up;
                    self.tell(at);
                }
                while !self.hosts[at].report_news.is_empty() {
                    self.apply(&Op::HearReport(at));
                }
            }
            self.apply(&Op::Lead);
            self.apply(&Op::Tick);
            let down = self.taken_down();
            if down > self.budget {
                return Err(format!("{down} down while it calms down"));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_exceeds_the_budget_and_every_one_ends(
        budget in 1_u32..4,
        ops in prop::collection::vec(op(), 0..250),
    ) {
        let mut world = World::new(budget);
        for (at, op) in ops.iter().enumerate() {
            world.apply(op);
            let down = world.taken_down();
            prop_assert!(down <= world.budget, "{down} are down after {at}: {op:?}");
        }
        let calm = world.calm_down(); prop_assert!(calm.is_ok(), "{calm:?}");
        prop_assert_eq!(&world.record.candidate, &None, "{:?}", world.next());
        let stable = world.record.stable.number;
        let astray: Vec<u64> = world.hosts.iter().map(|host| host.has).filter(|has| *has != stable).collect();
        prop_assert!(astray.is_empty(), "{stable} is stable, and some have {astray:?}: {:?}", world.next());
        prop_assert_eq!(world.next(), Step::default());
    }
}
