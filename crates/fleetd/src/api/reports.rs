//! The machines' reports, read part by part at one revision of the registry: they are most of it.

use std::collections::VecDeque;
use std::sync::Arc;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, MachineReport, RecordError};
use serde::Deserialize;

use crate::store::{Entry, Snapshot, Store, StoreError};

/// How many values are read at once, some kilobytes each.
const AT_ONCE: usize = 500;

/// How many are read first, when nobody knows yet how many are wanted, and at least.
const FIRST: usize = 60;

/// A report as the registry holds it.
pub(super) struct Report {
    pub(super) machine: MachineId,
    /// The last key that it takes.
    pub(super) last_key: String,
    changes: Entry,
    base: Option<Entry>,
}

impl Report {
    pub(super) fn decode<'a, U: Deserialize<'a>>(
        &'a self,
    ) -> Result<MachineReport<U>, RecordError> {
        let base = self.base.as_ref().map(|base| &*base.value);
        record::decode_report(&self.changes.value, base)
    }
}

/// The reports of a snapshot.
pub(super) fn reports_in(snapshot: &Snapshot) -> impl Iterator<Item = Report> {
    let below = snapshot.entries.range(keys::REPORTS.to_owned()..);
    let below = below.take_while(|(key, _)| key.starts_with(keys::REPORTS));
    below.filter_map(|(key, entry)| {
        let machine = keys::machine_of(keys::REPORTS, key)?;
        Some(Report {
            base: snapshot.entries.get(&keys::report_base(&machine)).cloned(),
            machine,
            last_key: key.clone(),
            changes: entry.clone(),
        })
    })
}

/// Reads reports one after the other.
pub(super) struct Reports {
    store: Arc<dyn Store>,
    prefix: String,
    /// The revision that all of them are of, once one was read.
    at: Option<u64>,
    /// The last key that was read.
    after: Option<String>,
    read: VecDeque<(String, Entry)>,
    more: bool,
    /// How many were given, and of how many keys.
    given: usize,
    keys: usize,
    /// How many keys the caller still wants, as far as that is known.
    wanted: usize,
}

impl Reports {
    /// Those whose keys begin so and come after that one; at that revision, or as they are now.
    pub(super) fn new(
        store: Arc<dyn Store>,
        prefix: String,
        after: Option<String>,
        at: Option<u64>,
    ) -> Self {
        Self {
            store,
            prefix,
            at,
            after,
            read: VecDeque::new(),
            more: true,
            given: 0,
            keys: 0,
            wanted: usize::MAX,
        }
    }

    /// Tells how many more are wanted: hardly more are read then.
    pub(super) fn want(&mut self, reports: usize) {
        let keys = reports * self.keys.max(1) / self.given.max(1);
        // What is behind the last one tells that it is whole, and whether there are more.
        self.wanted = keys + 1;
    }

    /// Whether any key is left.
    pub(super) fn more(&self) -> bool {
        self.more || !self.read.is_empty()
    }

    /// The revision that they are of; none before the first.
    pub(super) fn revision(&self) -> Option<u64> {
        self.at
    }

    /// The next one; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Report>, StoreError> {
        loop {
            self.fill().await?;
            let Some((key, changes)) = self.read.pop_front() else {
                return Ok(None);
            };
            // Keys of any other form are none of ours.
            let Some(machine) = keys::machine_of(keys::REPORTS, &key) else {
                continue;
            };
            self.fill().await?;
            let base_key = keys::report_base(&machine);
            let (mut last_key, mut base) = (key, None);
            if self.read.front().is_some_and(|(key, _)| *key == base_key)
                && let Some((key, entry)) = self.read.pop_front()
            {
                (last_key, base) = (key, Some(entry));
            }
            self.given += 1;
            self.keys += 1 + usize::from(base.is_some());
            return Ok(Some(Report {
                machine,
                last_key,
                changes,
                base,
            }));
        }
    }

    /// Reads on where nothing is left of what was read.
    async fn fill(&mut self) -> Result<(), StoreError> {
        while self.read.is_empty() && self.more {
            let limit = match self.given {
                0 => FIRST,
                _ => self.wanted.clamp(FIRST, AT_ONCE),
            };
            let page = self
                .store
                .page(&self.prefix, self.after.as_deref(), limit, self.at);
            let page = page.await?;
            self.at = Some(page.snapshot.revision);
            self.more = page.more;
            self.read = page.snapshot.entries.into_iter().collect();
            self.after = self
                .read
                .back()
                .map(|(key, _)| key.clone())
                .or(self.after.take());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet_core::record::{ReportBase, ReportChanges, UnitReport, encode};
    use fleet_core::unit::UnitName;

    use super::*;
    use crate::store::{Embedded, Write};

    /// More than are read at once; of every third one there is no base.
    const MACHINES: usize = AT_ONCE;

    fn units(name: &str) -> BTreeMap<UnitName, UnitReport> {
        let name = UnitName::parse(name).expect("valid");
        BTreeMap::from([(name, UnitReport::default())])
    }

    async fn filled() -> Arc<dyn Store> {
        let store = Arc::new(Embedded::in_memory());
        // With it, the first read ends between a report and its base.
        let first = Write::Put {
            key: format!("{}+", keys::REPORTS),
            value: Vec::new(),
            lease: None,
        };
        store.commit(vec![], vec![first]).await.expect("written");
        for number in 0..MACHINES {
            let machine = MachineId::parse(&format!("{number:032x}")).expect("valid");
            let base = u64::from(!number.is_multiple_of(3));
            let changes = ReportChanges {
                units: units("changed.service"),
                base,
                ..ReportChanges::default()
            };
            let under = ReportBase {
                number: base,
                units: units("base.service"),
            };
            let foreign = format!("{}/else", keys::report(&machine));
            let mut writes = vec![
                (keys::report(&machine), encode(&changes)),
                (foreign, b"rubbish".to_vec()),
            ];
            if base > 0 {
                writes.push((keys::report_base(&machine), encode(&under)));
            }
            let put = |(key, value)| Write::Put {
                key,
                value,
                lease: None,
            };
            let writes = writes.into_iter().map(put).collect();
            store.commit(vec![], writes).await.expect("written");
        }
        let read = store.page(keys::REPORTS, None, FIRST, None).await;
        let read = read.expect("read").snapshot.entries;
        let last = read.last_key_value().map(|(key, _)| format!("{key}/base"));
        let all = store.list(&[keys::REPORTS]).await.expect("lists");
        assert!(last.is_some_and(|base| all.entries.contains_key(&base)));
        store
    }

    fn is_whole(report: &Report, number: usize) {
        assert_eq!(report.machine.as_str(), format!("{number:032x}"));
        let said: MachineReport = report.decode().expect("one report");
        let names: Vec<&str> = said.units.keys().map(UnitName::as_str).collect();
        if number.is_multiple_of(3) {
            assert_eq!(names, ["changed.service"]);
        } else {
            assert_eq!(names, ["base.service", "changed.service"]);
        }
    }

    #[tokio::test]
    async fn a_report_is_whole_wherever_one_read_ends_and_the_next_begins() {
        let store = filled().await;
        let prefix = || keys::REPORTS.to_owned();
        let mut all = Reports::new(store.clone(), prefix(), None, None);
        for number in 0..MACHINES {
            let report = all.next().await.expect("read").expect("not the last");
            is_whole(&report, number);
            // As the next page of a listing goes on.
            if number.is_multiple_of(50) && number + 1 < MACHINES {
                let mut rest = Reports::new(store.clone(), prefix(), Some(report.last_key), None);
                let next = rest.next().await.expect("read").expect("not the last");
                is_whole(&next, number + 1);
            }
        }
        assert!(all.next().await.expect("read").is_none());
        let snapshot = store.list(&[keys::REPORTS]).await.expect("lists");
        let mut count = 0;
        for (number, report) in reports_in(&snapshot).enumerate() {
            is_whole(&report, number);
            count += 1;
        }
        assert_eq!(count, MACHINES);
    }
}
