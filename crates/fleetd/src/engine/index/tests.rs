//! What the leader takes of what the registry shows, and what of that is news.

use fleet_core::record::UnitReport;

use super::*;
use crate::engine::fixture::{everywhere, machine, name, seen};

fn progress(done: usize) -> Vec<u8> {
    record::encode(&Progress {
        unit: 1,
        revision: 2,
        done,
        at: 0,
    })
}

fn done(index: &Index) -> Option<usize> {
    let progress = index.progress.get(&name())?.value.as_ref()?;
    Some(progress.done)
}

/// The machine says whether its unit waits for its turn.
fn says(index: &mut Index, revision: u64, deferred: bool) {
    let unit = UnitReport {
        deferred,
        ..UnitReport::default()
    };
    let report = MachineReport {
        units: BTreeMap::from([(name(), unit)]),
        ..MachineReport::default()
    };
    let value = record::encode(&report);
    seen(index, revision, &keys::report(&machine()), Some(value));
}

#[test]
fn late_watch_event_undoes_no_write_of_the_leader() {
    let mut index = Index::default();
    let key = keys::rollout(&name());
    let write = Write::Put {
        key: key.clone(),
        value: progress(7),
        lease: None,
    };
    index.wrote(vec![write], 10);
    seen(&mut index, 9, &key, Some(progress(1)));
    assert_eq!(done(&index), Some(7));
    index.news = News::default();
    seen(&mut index, 10, &key, Some(progress(7)));
    assert!(index.news.units.is_empty(), "it is known already");
    seen(&mut index, 11, &key, Some(progress(8)));
    assert_eq!(done(&index), Some(8));

    index.wrote(vec![Write::Delete(key.clone())], 20);
    seen(&mut index, 19, &key, Some(progress(9)));
    assert_eq!(done(&index), None);
}

#[test]
fn a_unit_that_nothing_is_left_to_do_for_is_not_active() {
    let mut index = Index::default();
    let unit = keys::unit(&name());
    seen(&mut index, 2, &unit, Some(record::encode(&everywhere())));
    for (revision, deferred) in [(3, false), (4, true), (5, false)] {
        says(&mut index, revision, deferred);
        assert_eq!(index.is_active(&name()), deferred);
    }
}

#[test]
fn what_reports_say_is_forgotten_once_nothing_is_active() {
    let mut index = Index::default();
    let unit = keys::unit(&name());
    seen(&mut index, 2, &unit, Some(record::encode(&everywhere())));
    for (revision, deferred) in [(3, true), (4, true), (5, false), (6, false)] {
        says(&mut index, revision, deferred);
        index.rest();
        let report = index.machines[&machine()].report.as_ref();
        assert_eq!(report.expect("there").is_read(), deferred, "{revision}");
    }
}

#[test]
fn a_report_is_read_over_the_base_of_its_own_commit() {
    let mut index = Index::default();
    let (unit, (changes, base)) = (
        keys::unit(&name()),
        (keys::report(&machine()), keys::report_base(&machine())),
    );
    seen(&mut index, 2, &unit, Some(record::encode(&everywhere())));
    let commit = |number: u64, deferred: bool| {
        let unit = UnitReport {
            deferred,
            ..UnitReport::default()
        };
        let under = record::ReportBase {
            number,
            units: BTreeMap::from([(name(), unit)]),
        };
        let over: record::ReportChanges = record::ReportChanges {
            base: number,
            ..record::ReportChanges::default()
        };
        let entry = |value: Vec<u8>| Entry {
            value: value.into(),
            created: number,
            modified: number,
            lease: Some(crate::store::LeaseId(7)),
        };
        // As a listing has them: the base comes after what is written over it.
        vec![
            Change::Put(changes.clone(), entry(record::encode(&over))),
            Change::Put(base.clone(), entry(record::encode(&under))),
        ]
    };
    for (revision, deferred) in [(3, true), (4, false), (5, true)] {
        let changes = commit(revision, deferred);
        index.apply(Batch { revision, changes });
        assert_eq!(index.is_active(&name()), deferred);
        assert!(index.problems.is_empty(), "{:?}", index.problems);
    }
    let entries = commit(6, true).into_iter().map(|change| match change {
        Change::Put(key, entry) => (key, entry),
        Change::Delete(_) => unreachable!("it puts"),
    });
    let snapshot = Snapshot {
        entries: entries.collect(),
        revision: 6,
    };
    let mut fresh = Index::default();
    fresh.reset(&snapshot);
    let report = fresh.machines[&machine()].report.as_ref();
    let said = report.and_then(Report::value).expect("readable");
    assert!(said.units[&name()].deferred);

    // Without it nothing is known of the machine's units.
    let over = record::encode::<record::ReportChanges>(&record::ReportChanges {
        base: 9,
        ..record::ReportChanges::default()
    });
    seen(&mut index, 9, &changes, Some(over));
    let problem = index.problem(&changes);
    assert!(problem.contains("the base beside it"), "{problem}");
}

#[test]
fn unreadable_value_replaces_a_readable_one() {
    let mut index = Index::default();
    let key = keys::rollout(&name());
    seen(&mut index, 2, &key, Some(progress(1)));
    seen(&mut index, 3, &key, Some(b"{".to_vec()));
    assert_eq!(done(&index), None);
    assert_eq!(
        index.progress[&name()].at,
        3,
        "the key is there all the same"
    );
    assert!(index.problems.contains_key(&key));
    seen(&mut index, 4, &key, Some(progress(2)));
    assert!(index.problems.is_empty());
}
