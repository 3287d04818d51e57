//! The text for each machine, as golden text.

use std::collections::BTreeSet;

use super::*;
use crate::place::Reason;
use crate::record::Revision;
use crate::unit::{Content, UnitName};

const BASE: &str = "[Unit]\nDescription=web\n[Service]\nExecStart=/a\n[X-Fleet]\nGlobal=true\n";

fn parsed(content: &str) -> Parsed {
    let name = UnitName::parse("web.service").expect("valid");
    Parsed::parse(name, &Content::from(content))
}

fn record(content: &str) -> UnitRecord {
    UnitRecord {
        target: TargetState::Launched,
        stable: Revision {
            number: 3,
            at: 0,
            content: Content::from(content),
            restarts: 0,
        },
        candidate: None,
        last: None,
        owners: BTreeSet::new(),
    }
}

fn report(revision: u64) -> UnitReport {
    UnitReport {
        revision,
        launched: true,
        ..UnitReport::default()
    }
}

fn live<'a>(id: &'a MachineId, report: Option<&'a UnitReport>) -> OnMachine<'a> {
    OnMachine {
        id,
        primary_ip: "",
        presence: Presence::Live(1),
        scheduling: Scheduling::Normal,
        verdict: Verdict::Run,
        report,
    }
}

/// What a new content does to a fleet that runs [`BASE`]; none: to one without the unit.
fn says(new: &str, runs: bool) -> String {
    let (old, new_parsed, record) = (parsed(BASE), parsed(new), record(BASE));
    let ids: Vec<MachineId> = "12345678"
        .chars()
        .map(|digit| MachineId::parse(&digit.to_string().repeat(32)).expect("valid"))
        .collect();
    let (stable, other) = (report(3), report(2));
    let has = runs.then_some(&stable);
    let mut elsewhere = live(&ids[3], None);
    elsewhere.verdict = Verdict::Not(Reason::Metadata {
        key: "az".to_owned(),
        accepted: vec!["1".to_owned()],
        found: None,
    });
    let mut no_longer = elsewhere.clone();
    no_longer.id = &ids[4];
    no_longer.report = has;
    let mut offline = live(&ids[5], None);
    offline.presence = Presence::Offline(Some(1_700_000_000_000));
    let mut cordoned = live(&ids[6], has);
    cordoned.scheduling = Scheduling::Cordoned;
    let machines = vec![
        live(&ids[0], has),
        live(&ids[1], runs.then_some(&other)),
        live(&ids[2], None),
        elsewhere,
        no_longer,
        offline,
        cordoned,
    ];
    let planned = preview(&Proposed {
        parsed: &new_parsed,
        existing: runs.then_some(Existing {
            record: &record,
            same: new == BASE,
            stable: &old,
            rolled_back: None,
        }),
        machines,
    });
    let mut text = format!(
        "{} ({}): {}\n",
        planned.action,
        planned.effect.as_deref().unwrap_or("-"),
        planned.reason
    );
    for machine in planned.machines {
        let id = machine.machine_id.get(..1).unwrap_or("");
        text.push_str(&format!("{id} {}: {}\n", machine.action, machine.reason));
    }
    if let Some(batches) = planned.batches {
        let Batches {
            machines,
            count,
            reason,
        } = batches;
        text.push_str(&format!("{machines} at a time, {count} times: {reason}\n"));
    }
    if let Some(stops) = planned.stops {
        let (machines, count, reason) = (stops.machines, stops.count, stops.reason);
        text.push_str(&format!(
            "stops {machines} at a time, {count} times: {reason}\n"
        ));
    }
    text
}

#[test]
fn a_new_unit_starts_wherever_it_may() {
    insta::assert_snapshot!(says(BASE, false), @r"
    create (-): it is not in the registry
    1 start: its metadata matches
    2 start: its metadata matches
    3 start: its metadata matches
    4 not-matched: it needs az=1, and az is not set here
    5 not-matched: it needs az=1, and az is not set here
    6 deferred: the machine is offline since 2023-11-14 22:13:20 UTC
    7 deferred: the machine is cordoned, and nothing new starts there
    ");
}

#[test]
fn restarting_update_shows_difference_and_turns() {
    insta::assert_snapshot!(says(&BASE.replace("/a", "/b"), true), @r"
    update (restart): [Service] ExecStart= differs
    1 restart: [Service] ExecStart= differs
    2 restart: it has revision 2, of a rollout that is not done
    3 start: its metadata matches
    4 not-matched: it needs az=1, and az is not set here
    5 stop: it needs az=1, and az is not set here
    6 deferred: the machine is offline since 2023-11-14 22:13:20 UTC
    7 deferred: the machine is cordoned, and is not updated
    1 at a time, 2 times: MaxUnavailable=10% of 4
    stops 1 at a time, 1 times: MaxUnavailable=10% of 5
    ");
}

#[test]
fn a_kind_that_systemd_reloads_is_not_restarted() {
    for kind in ["timer", "target", "slice"] {
        let name = UnitName::parse(&format!("web.{kind}")).expect("valid");
        let read = |content: &str| Parsed::parse(name.clone(), &Content::from(content));
        let (old, record) = (read(BASE), record(BASE));
        let new = read(&BASE.replace("/a", "/b"));
        let ids = ["1", "2"].map(|it| MachineId::parse(&it.repeat(32)).expect("valid"));
        let has = report(3);
        let planned = preview(&Proposed {
            parsed: &new,
            existing: Some(Existing {
                record: &record,
                same: false,
                stable: &old,
                rolled_back: None,
            }),
            machines: ids.iter().map(|id| live(id, Some(&has))).collect(),
        });
        assert_eq!(planned.effect.as_deref(), Some("reload"), "{kind}");
        let actions: Vec<&str> = planned.machines.iter().map(|it| &*it.action).collect();
        assert_eq!(actions, ["reload"; 2], "{kind}");
        let batches = planned.batches.expect("in turn all the same");
        assert_eq!((batches.machines, batches.count), (1, 2), "{kind}");
    }
}

#[test]
fn a_unit_that_would_run_nowhere_is_noted_and_stops_in_turn() {
    let (old, record) = (parsed(BASE), record(BASE));
    let new = parsed(&format!(
        "{BASE}MachineMetadata=kind=al\nMaxUnavailable=1\n"
    ));
    let ids = ["1", "2", "3"].map(|it| MachineId::parse(&it.repeat(32)).expect("valid"));
    let has = report(3);
    let machines = ids.iter().map(|id| OnMachine {
        verdict: Verdict::Not(Reason::NotGlobal),
        ..live(id, Some(&has))
    });
    let planned = preview(&Proposed {
        parsed: &new,
        existing: Some(Existing {
            record: &record,
            same: false,
            stable: &old,
            rolled_back: None,
        }),
        machines: machines.collect(),
    });
    assert_eq!(
        planned.notes,
        ["it matches no machine, and would run nowhere"]
    );
    assert_eq!(planned.batches, None);
    assert!(planned.nowhere);
    let stops = planned.stops.expect("in turn");
    assert_eq!((stops.machines, stops.count), (1, 3));
    assert_eq!(stops.reason, "MaxUnavailable=1 of 3");
}

#[test]
fn an_update_that_restarts_nothing_reloads_or_does_nothing() {
    let reload = says(&BASE.replace("=web", "=site"), true);
    assert!(
        reload.starts_with("update (reload): [Unit] Description= differs\n1 reload: "),
        "{reload}"
    );
    assert!(reload.contains("7 reload"), "{reload}");
    let nothing = says(&format!("{BASE}# a comment\n"), true);
    assert!(
        nothing.starts_with("update (nothing): nothing that systemd reads differs\n1 none: "),
        "{nothing}"
    );
}

#[test]
fn what_is_there_already_is_left_alone() {
    let same = says(BASE, true);
    assert!(
        same.starts_with("none (-): the registry has this content\n1 none: it has revision 3"),
        "{same}"
    );
}

#[test]
fn a_budget_is_never_more_machines_than_there_are() {
    let all = says(
        &format!("{BASE}UpdateStrategy=all\n").replace("/a", "/b"),
        true,
    );
    assert!(
        all.contains("2 at a time, 1 times: UpdateStrategy=all"),
        "{all}"
    );
    let manual = says(
        &format!("{BASE}UpdateStrategy=manual\n").replace("/a", "/b"),
        true,
    );
    assert!(
        manual.contains("once somebody resumes it (UpdateStrategy=manual)"),
        "{manual}"
    );
}

#[test]
fn rolled_back_content_is_found_in_the_history() {
    let unit = record(BASE);
    let revision = |number, content: &str| Revision {
        number,
        at: 0,
        content: Content::from(content),
        restarts: 0,
    };
    let history = [
        Past {
            revision: revision(1, "bad"),
            dropped: Some("it failed on n1".to_owned()),
        },
        Past {
            revision: revision(2, "old"),
            dropped: None,
        },
    ];
    let found = |content: &str| {
        let past = rolled_back(&Content::from(content), &unit, &history);
        past.map(|past| past.revision.number)
    };
    assert_eq!(found("bad"), Some(1));
    assert_eq!(found("old"), None);
    assert_eq!(found(BASE), None);
}
