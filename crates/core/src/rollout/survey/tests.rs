//! Tests the counts, and the conditions that follow.

use std::collections::BTreeSet;

use super::*;
use crate::record::{Candidate, Revision};
use crate::unit::{Content, UnitName};

const OLD: &str = "[Service]\nExecStart=/old\n[X-Fleet]\nGlobal=true\nMachineMetadata=az=1\nMachineMetadata=az=2\n";
const NEW: &str =
    "[Service]\nExecStart=/new\n[X-Fleet]\nGlobal=true\nMaxUnavailable=1\nMinReadySec=10\n";

fn parsed(content: &str) -> Parsed {
    let name = UnitName::parse("web.service").expect("valid");
    Parsed::parse(name, &Content::from(content))
}

fn record(phase: Option<Phase>) -> UnitRecord {
    let revision = |number, content: &str| Revision {
        number,
        at: 7,
        content: Content::from(content),
        restarts: 0,
    };
    UnitRecord {
        target: TargetState::Launched,
        stable: revision(1, OLD),
        candidate: phase.map(|phase| Candidate {
            revision: revision(2, NEW),
            phase,
            reason: "because".to_owned(),
            since: 8,
            failed_on: BTreeSet::new(),
        }),
        last: None,
        owners: BTreeSet::new(),
    }
}

fn report(revision: u64) -> UnitReport {
    UnitReport {
        revision,
        launched: true,
        ready: true,
        available: true,
        ..UnitReport::default()
    }
}

fn id(digit: char) -> MachineId {
    MachineId::parse(&digit.to_string().repeat(32)).expect("valid")
}

fn on<'a>(id: &'a MachineId, report: Option<&'a UnitReport>) -> Surveyed<'a> {
    Surveyed {
        id,
        primary_ip: "10.0.0.1",
        presence: Presence::Live(5),
        scheduling: Scheduling::Normal,
        verdict: Verdict::Run,
        report,
        problem: None,
        unknown: None,
        held: None,
        grant: None,
    }
}

fn survey(record: &UnitRecord, machines: Vec<Surveyed<'_>>, test: impl Fn(&Survey<'_>)) {
    let (old, new) = (parsed(OLD), parsed(NEW));
    let newest = if record.candidate.is_some() {
        &new
    } else {
        &old
    };
    let back = record.candidate.as_ref().map(|it| it.phase) == Some(Phase::RollingBack);
    test(&Survey {
        record,
        created: 3,
        heading: if back { &old } else { newest },
        newest,
        progress: None,
        machines,
        now: 9,
    });
}

fn counts(row: &RolloutRow) -> String {
    format!(
        "desired {}, current {}, up to date {}, ready {}, available {}, failed {}, deferred {}",
        row.desired,
        row.current,
        row.up_to_date,
        row.ready,
        row.available,
        row.failed,
        row.deferred
    )
}

fn conditions(row: &RolloutRow) -> String {
    let line =
        |it: &Condition| format!("{} {} {}: {}\n", it.kind, it.status, it.reason, it.message);
    row.conditions.iter().map(line).collect()
}

#[test]
fn machines_are_counted_as_those_of_a_daemon_set() {
    let ids: Vec<MachineId> = ('1'..='9').map(id).collect();
    let mut starting = report(2);
    starting.ready = false;
    starting.available = false;
    let mut failed = starting.clone();
    failed.failed = Some("failed (exit-code)".to_owned());
    let (old, new) = (report(1), report(2));
    let mut elsewhere = on(&ids[4], None);
    elsewhere.verdict = Verdict::Not(Reason::NotGlobal);
    let mut offline = on(&ids[5], None);
    offline.presence = Presence::Offline(Some(4));
    let mut cordoned = on(&ids[6], Some(&old));
    cordoned.scheduling = Scheduling::Cordoned;
    let mut cordoned_without = on(&ids[7], None);
    cordoned_without.scheduling = Scheduling::Cordoned;
    let mut drained = on(&ids[8], Some(&old));
    drained.scheduling = Scheduling::Drained;
    let machines = vec![
        on(&ids[0], Some(&new)),
        on(&ids[1], Some(&starting)),
        on(&ids[2], Some(&failed)),
        on(&ids[3], None),
        elsewhere,
        offline,
        cordoned,
        cordoned_without,
        drained,
    ];
    survey(&record(Some(Phase::Rolling)), machines, |survey| {
        let row = survey.row();
        insta::assert_snapshot!(counts(&row), @"desired 5, current 4, up to date 3, ready 2, available 2, failed 1, deferred 4");
        insta::assert_snapshot!(conditions(&row), @r"
        Available False SomeUnavailable: available on 2 of 5 machines
        Progressing True Rolling: revision 2 takes the place of 1: 3 of 5 machines have it
        Degraded True Failed: failed on 1 of 5 machines; on 33333333: failed (exit-code)
        Held False NotHeld: nothing is paused, and every live machine follows the registry
        ");
        // The machine where it does not belong, and does not run, is none of its machines.
        assert_eq!(survey.status(12).machines.len(), 8);
    });
}

#[test]
fn a_machine_that_has_not_told_yet_has_not_failed() {
    let ids: Vec<MachineId> = ('1'..='3').map(id).collect();
    let up = report(1);
    let mut untold = on(&ids[1], None);
    untold.unknown = Some(Unknown::Untold("fleetd has just started there"));
    let mut unreadable = on(&ids[2], None);
    unreadable.unknown = Some(Unknown::Unreadable("it is damaged"));
    let machines = vec![on(&ids[0], Some(&up)), untold, unreadable];
    survey(&record(None), machines, |survey| {
        insta::assert_snapshot!(counts(&survey.row()), @"desired 3, current 1, up to date 1, ready 1, available 1, failed 1, deferred 0");
    });
}

#[test]
fn machine_waits_only_while_no_rollout_gives_it_a_turn() {
    let id = id('1');
    let mut kept = report(1);
    kept.deferred = true;
    let deferred = |phase| {
        let record = record(phase);
        let machines = vec![on(&id, Some(&kept))];
        let (old, new) = (parsed(OLD), parsed(NEW));
        let survey = Survey {
            record: &record,
            created: 3,
            heading: &new,
            newest: &old,
            progress: None,
            machines,
            now: 9,
        };
        survey.row().deferred
    };
    assert_eq!(deferred(Some(Phase::Rolling)), 0);
    assert_eq!(deferred(None), 1);
}

#[test]
fn up_to_date_is_what_machines_are_on_the_way_to() {
    let id = id('1');
    for (phase, up_to_date) in [
        (None, 1),
        (Some(Phase::Rolling), 0),
        (Some(Phase::Paused), 0),
        (Some(Phase::RollingBack), 1),
    ] {
        let old = report(1);
        survey(&record(phase), vec![on(&id, Some(&old))], |survey| {
            assert_eq!(survey.row().up_to_date, up_to_date, "{phase:?}");
        });
    }
}

#[test]
fn conditions_say_why() {
    let (one, two) = (id('1'), id('2'));
    let old = report(1);
    let says = |record: &UnitRecord, machines: Vec<Surveyed<'_>>| {
        let text = std::cell::RefCell::new(String::new());
        survey(record, machines, |survey| {
            *text.borrow_mut() = conditions(&survey.row())
        });
        text.into_inner()
    };
    let fine = vec![on(&one, Some(&old))];
    insta::assert_snapshot!(says(&record(None), fine.clone()), @r"
    Available True AllAvailable: available on 1 of 1 machines
    Progressing False Stable: every machine is to run revision 1
    Degraded False WithinBudget: nothing failed, and not more is missing than its budget allows
    Held False NotHeld: nothing is paused, and every live machine follows the registry
    ");
    let mut held = on(&two, None);
    held.held = Some("the registry was restored from a backup");
    insta::assert_snapshot!(says(&record(None), vec![on(&one, None), held]), @r"
    Available False SomeUnavailable: available on 0 of 2 machines
    Progressing False Stable: every machine is to run revision 1
    Degraded True BelowBudget: 2 of 2 machines are without it, and the budget is 1
    Held True RegistryNotTrusted: 22222222 keeps what it has: the registry was restored from a backup
    ");
    insta::assert_snapshot!(says(&record(Some(Phase::Paused)), fine.clone()), @r"
    Available True AllAvailable: available on 1 of 1 machines
    Progressing False Paused: revision 2 goes no further: 0 of 1 machines have it
    Degraded False WithinBudget: nothing failed, and not more is missing than its budget allows
    Held True Paused: because
    ");
    let mut loaded = record(None);
    loaded.target = TargetState::Loaded;
    insta::assert_snapshot!(says(&loaded, Vec::new()), @r"
    Available False NotLaunched: its target state is loaded
    Progressing False Stable: every machine is to run revision 1
    Degraded False WithinBudget: nothing failed, and not more is missing than its budget allows
    Held False NotHeld: nothing is paused, and every live machine follows the registry
    ");
}

#[test]
fn the_status_of_one_unit_tells_all_as_json() {
    let (one, two) = (id('1'), id('2'));
    let new = report(2);
    let grant = |session| Grant {
        unit: 3,
        revision: 2,
        session,
        was_available: true,
        proved: false,
        leaves: false,
    };
    let (valid, stale) = (grant(5), grant(4));
    let mut granted = on(&one, Some(&new));
    granted.grant = Some((&valid, 6));
    let mut late = on(&two, None);
    late.grant = Some((&stale, 6));
    survey(
        &record(Some(Phase::Rolling)),
        vec![granted, late],
        |survey| {
            let mut status = survey.status(12);
            status.waits = None;
            status.row.conditions.clear();
            insta::assert_snapshot!(serde_json::to_string_pretty(&status).expect("JSON"), @r#"
        {
          "registryRevision": 12,
          "unit": "web.service",
          "desiredState": "launched",
          "revision": 1,
          "at": 7,
          "candidate": 2,
          "phase": "rolling",
          "reason": "because",
          "desired": 2,
          "current": 1,
          "upToDate": 1,
          "ready": 1,
          "available": 1,
          "failed": 0,
          "deferred": 0,
          "conditions": [],
          "since": 8,
          "policy": {
            "strategy": "rolling",
            "maxUnavailable": "1",
            "budget": 1,
            "minReadySec": "10s",
            "progressDeadlineSec": "10m",
            "onFailure": "rollback"
          },
          "machines": [
            {
              "machineID": "11111111111111111111111111111111",
              "primaryIP": "10.0.0.1",
              "live": true,
              "wanted": 2,
              "reason": "its metadata matches",
              "revision": 2,
              "granted": 2,
              "ready": true,
              "available": true,
              "deferred": false
            },
            {
              "machineID": "22222222222222222222222222222222",
              "primaryIP": "10.0.0.1",
              "live": true,
              "wanted": 2,
              "reason": "its metadata matches",
              "ready": false,
              "available": false,
              "deferred": false
            }
          ]
        }
        "#);
        },
    );
    survey(&record(None), Vec::new(), |survey| {
        assert_eq!(survey.row().metadata, "az=1,az=2");
    });
}
