//! Explanations as golden text: the list, and what follows from it.

use std::collections::BTreeSet;

use super::*;
use crate::record::{Candidate, Revision};
use crate::rollout::Phase;
use crate::unit::{Content, Parsed};

fn name(text: &str) -> UnitName {
    UnitName::parse(text).expect("valid")
}

fn parsed(unit: &str, fleet: &str) -> Parsed {
    let text = format!("[Service]\nExecStart=/x\n[X-Fleet]\n{fleet}");
    Parsed::parse(name(unit), &Content::from(text.as_str()))
}

fn record() -> UnitRecord {
    UnitRecord {
        target: TargetState::Launched,
        stable: Revision {
            number: 1,
            at: 0,
            content: Content::from("[Service]\nExecStart=/x\n"),
            restarts: 0,
        },
        candidate: None,
        last: None,
        owners: BTreeSet::new(),
    }
}

fn rolling(phase: Phase, reason: &str) -> UnitRecord {
    let mut record = record();
    record.candidate = Some(Candidate {
        revision: Revision {
            number: 2,
            ..record.stable.clone()
        },
        phase,
        reason: reason.to_owned(),
        since: 0,
        failed_on: BTreeSet::new(),
    });
    record
}

/// A world of one machine, and what is said of `web.service` there.
struct World<'a> {
    record: UnitRecord,
    web: Parsed,
    other: Option<Parsed>,
    metadata: Metadata,
    report: Option<UnitReport>,
    granted: Option<u64>,
    waits: Option<&'a str>,
    scheduling: Scheduling,
    presence: Presence,
    problem: Option<&'a str>,
    held: Option<&'a str>,
}

fn running() -> UnitReport {
    UnitReport {
        active: "active".to_owned(),
        sub: "running".to_owned(),
        revision: 1,
        launched: true,
        ready: true,
        available: true,
        ..UnitReport::default()
    }
}

fn placeable(parsed: &Parsed, created: u64, target: TargetState) -> Placeable<'_> {
    Placeable {
        name: &parsed.name,
        created,
        target,
        options: &parsed.options,
    }
}

impl World<'_> {
    fn new(fleet: &str) -> Self {
        Self {
            record: record(),
            web: parsed("web.service", fleet),
            other: None,
            metadata: Metadata::from([("az".to_owned(), "1".to_owned())]),
            report: Some(running()),
            granted: None,
            waits: None,
            scheduling: Scheduling::Normal,
            presence: Presence::Live(5),
            problem: None,
            held: None,
        }
    }

    fn explained(&self) -> ExplainedMachine {
        let id = MachineId::parse(&"a".repeat(32)).expect("valid");
        let web = placeable(&self.web, 2, self.record.target);
        let other = self.other.as_ref();
        let other = other.map(|other| placeable(other, 1, TargetState::Launched));
        let all: Vec<Placeable<'_>> = other.into_iter().chain([web]).collect();
        let asked = Asked {
            name: &self.web.name,
            unit: Some((&self.record, web)),
            all: &all,
            stable_process: "p1",
            waits: self.waits,
        };
        explain(
            &asked,
            &OnMachine {
                id: &id,
                primary_ip: "10.0.0.1",
                presence: self.presence,
                metadata: &self.metadata,
                scheduling: self.scheduling,
                report: self.report.as_ref(),
                process: self
                    .report
                    .as_ref()
                    .map(|report| format!("p{}", report.revision)),
                granted: self.granted,
                problem: self.problem,
                held: self.held,
            },
        )
    }

    /// The conditions that do not hold, the verdict, and what would change it.
    fn says(&self) -> String {
        let explained = self.explained();
        let missing = explained.predicates.iter().filter(|it| !it.holds);
        let names: Vec<&str> = missing.map(|it| it.name.as_str()).collect();
        let remedy = explained.would_change.unwrap_or_else(|| "-".to_owned());
        format!("not {}: {}; {remedy}", names.join(", "), explained.verdict)
    }

    fn revision(&self) -> String {
        let predicates = self.explained().predicates;
        let found = predicates.into_iter().find(|it| it.name == "revision");
        found.expect("it is asked").reason
    }
}

#[test]
fn what_is_as_wanted_holds_in_every_line() {
    let world = World::new("Global=true\nMachineMetadata=az=1\nMachineMetadata=az=2");
    let explained = world.explained();
    let lines: String = explained
        .predicates
        .iter()
        .map(|it| {
            format!(
                "{} {}: {}\n",
                if it.holds { "+" } else { "-" },
                it.name,
                it.reason
            )
        })
        .collect();
    insta::assert_snapshot!(lines, @r"
    + exists: it is in the registry
    + launched: its target state is launched
    + not-a-template: it is not a template
    + global: Global=true
    + metadata az: az=1 is what it needs
    + no-conflict: it conflicts with no unit there
    + online: the machine is here
    + scheduling: everything that belongs there may start
    + registry-followed: the machine follows the registry
    + revision: its revision there is the stable revision, 1
    + no-problem: no unit of that name that is not fleet's is in its way, and its file is in order
    + state: systemd has it active (running), and it is available
    ");
    insta::assert_snapshot!(explained.verdict, @"web.service runs on aaaaaaaa, revision 1");
    assert_eq!(explained.would_change, None);
}

#[test]
fn a_unit_that_is_not_there_has_one_line() {
    let id = MachineId::parse(&"a".repeat(32)).expect("valid");
    let asked = Asked {
        name: &name("web.service"),
        unit: None,
        all: &[],
        stable_process: "",
        waits: None,
    };
    let explained = explain(
        &asked,
        &OnMachine {
            id: &id,
            primary_ip: "",
            presence: Presence::Live(5),
            metadata: &Metadata::new(),
            scheduling: Scheduling::Normal,
            report: None,
            process: None,
            granted: None,
            problem: None,
            held: None,
        },
    );
    assert_eq!(explained.predicates.len(), 1);
    insta::assert_snapshot!(explained.verdict, @"web.service does not run on aaaaaaaa: it is not in the registry");
    insta::assert_snapshot!(explained.would_change.unwrap_or_default(), @"fleetctl start web.service submits and starts it");
}

#[test]
fn unit_that_tolerates_a_cordon_starts_on_a_cordoned_machine() {
    let mut world = World::new("Global=true\nTolerates=cordon");
    world.scheduling = Scheduling::Cordoned;
    world.report = None;
    let says = world.says();
    assert!(!says.contains("not scheduling"), "{says}");
}

#[test]
fn the_first_condition_that_does_not_hold_is_the_answer() {
    let missing = |change: &dyn Fn(&mut World<'_>)| {
        let mut world = World::new("Global=true");
        world.report = None;
        change(&mut world);
        world.says()
    };
    insta::assert_snapshot!(missing(&|world| world.record.target = TargetState::Loaded), @"not launched, state: web.service does not run on aaaaaaaa: its target state is loaded; fleetctl start web.service");
    insta::assert_snapshot!(missing(&|world| world.web = parsed("web.service", "")), @"not global, state: web.service does not run on aaaaaaaa: it is not a global unit; Global=true in its [X-Fleet] section");
    insta::assert_snapshot!(missing(&|world| world.web = parsed("web@.service", "Global=true")), @"not not-a-template, state: web@.service does not run on aaaaaaaa: it is a template; an instance of it, such as NAME@1, can be started");
    insta::assert_snapshot!(missing(&|world| world.web = parsed("web.service", "Global=true\nMachineMetadata=az=2\nMachineMetadata=disk=ssd")), @"not metadata az, metadata disk, state: web.service does not run on aaaaaaaa: it needs az=2, and az=1 here; fleetctl metadata aaaaaaaa az=2");
    insta::assert_snapshot!(missing(&|world| world.other = Some(parsed("old.service", "Global=true\nConflicts=web*"))), @"not no-conflict, state: web.service does not run on aaaaaaaa: it conflicts with old.service, which was created first and belongs there; fleetctl unload old.service makes room for it");
    insta::assert_snapshot!(missing(&|world| world.presence = Presence::Offline(None)), @"not online, state: web.service does not run on aaaaaaaa: the machine is offline, and what runs there is not known; fleetd running there, and reaching the registry");
    insta::assert_snapshot!(missing(&|world| world.scheduling = Scheduling::Cordoned), @"not scheduling, state: web.service does not run on aaaaaaaa: the machine is cordoned, and nothing new starts there; fleetctl uncordon aaaaaaaa");
    insta::assert_snapshot!(missing(&|world| world.held = Some("the registry is empty")), @"not registry-followed, state: web.service does not run on aaaaaaaa: the registry is empty; -");
    insta::assert_snapshot!(missing(&|world| world.problem = Some("a unit of this name that is not fleet's exists (/etc)")), @"not no-problem, state: web.service does not run on aaaaaaaa: a unit of this name that is not fleet's exists (/etc); the machine's journal says more: journalctl -u fleet");
    insta::assert_snapshot!(missing(&|_| {}), @"not state: web.service does not run on aaaaaaaa: the machine has not put its file in place yet; time, or the next problem that the machine reports");
}

#[test]
fn a_unit_that_failed_says_how() {
    let mut world = World::new("Global=true");
    let report = world.report.as_mut().expect("a report");
    report.active = "failed".to_owned();
    report.sub = "failed".to_owned();
    report.failed = Some("failed (exit-code)".to_owned());
    insta::assert_snapshot!(world.says(), @"not state: web.service does not run on aaaaaaaa: systemd has it failed (failed); failed (exit-code); journalctl -u web.service there says why");
}

#[test]
fn the_revision_says_what_it_waits_for() {
    let mut world = World::new("Global=true");
    world.record = rolling(Phase::Rolling, "");
    insta::assert_snapshot!(world.revision(), @"its revision there is the stable revision, 1; to revision 2: the leader has not granted it yet");
    world.waits = Some("1 of 3 machines are done; waiting for bbbbbbbb");
    insta::assert_snapshot!(world.revision(), @"its revision there is the stable revision, 1; to revision 2: 1 of 3 machines are done; waiting for bbbbbbbb");
    world.granted = Some(2);
    insta::assert_snapshot!(world.revision(), @"its revision there is the candidate, 2, which the leader granted");
    (world.granted, world.waits) = (None, None);
    world.report.as_mut().expect("a report").revision = 2;
    insta::assert_snapshot!(world.revision(), @"its revision there is the candidate, 2, which it had already");
    world.record = record();
    world.record.stable.number = 4;
    world.report.as_mut().expect("a report").revision = 3;
    insta::assert_snapshot!(world.revision(), @"its revision there is 3, which it has; to revision 4: the leader has not granted it yet");
}
