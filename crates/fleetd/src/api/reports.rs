//! The machines' reports, which are most of the registry. They are read in parts, at one revision.

use std::sync::Arc;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, Listed, MachineReport, RecordError, Units};
use fleet_core::unit::UnitName;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Api, apart};
use crate::store::{Entry, Snapshot, Store, StoreError};

/// The number of values in the first read, when their size and the wanted number are unknown. Also
/// the minimum of every read.
const FIRST: usize = 60;

/// The wanted size of one answer of the store, in bytes. etcd counts all later keys for each
/// answer.
const PART: usize = 4 << 20;

/// The largest read, as a multiple of all values read before.
const GROWTH: usize = 8;

/// A report as the registry stores it.
pub(super) struct Report {
    pub(super) machine: MachineId,
    /// The last key of the report.
    pub(super) last_key: String,
    changes: Entry,
    base: Option<Entry>,
}

impl Report {
    pub(super) fn decode<'a, C: Units + Deserialize<'a>>(
        &'a self,
    ) -> Result<MachineReport<C>, RecordError> {
        let base = self.base.as_ref().map(|base| &*base.value);
        record::decode_report(&self.changes.value, base)
    }

    /// Returns its report of one unit. Other units are skipped.
    pub(super) fn decode_of(&self, name: &UnitName) -> Result<MachineReport, RecordError> {
        let report = self.decode::<Listed<'_, &RawValue>>()?;
        let mut units = report.units.into_iter();
        let unit = units.find(|(other, _)| *other == name.as_str());
        let unit =
            unit.map(|(_, unit)| serde_json::from_str(unit.get()).map(|it| (name.clone(), it)));
        Ok(MachineReport {
            units: unit.transpose()?.into_iter().collect(),
            problems: report.problems,
            unknown: report.unknown,
        })
    }
}

/// Returns the reports of a snapshot.
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

/// Returns the result of `take` over all reports of that revision. If the registry has compacted
/// it, the present reports are read.
pub(super) async fn every_report<T: Default + Send + 'static>(
    api: &Api,
    at: u64,
    take: impl Fn(&mut T, &Report) + Clone + Send + 'static,
) -> Result<T, StoreError> {
    let from = |at| {
        let (store, prefix) = (api.registry.store().clone(), keys::REPORTS.to_owned());
        Reports::new(store, prefix, None, at)
    };
    match from(Some(at)).all(take.clone()).await {
        Err(StoreError::Compacted(_)) => from(None).all(take).await,
        taken => taken,
    }
}

/// A reader of reports, one after the other.
pub(super) struct Reports {
    store: Arc<dyn Store>,
    prefix: String,
    /// The revision of all reports. `None` before the first read.
    at: Option<u64>,
    /// The last key that was read.
    after: Option<String>,
    /// The last value of a read, if the rest of its report may follow.
    begun: Option<(String, Entry)>,
    more: bool,
    /// The number of reports returned so far.
    given: usize,
    /// The number of values read so far, and of their bytes.
    values: usize,
    bytes: usize,
    /// The number of keys that the caller still wants, as far as that is known.
    wanted: usize,
}

impl Reports {
    /// Returns a reader of the reports whose keys begin with `prefix` and come after `after`. `at`
    /// is the revision to read, `None` for the present one.
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
            begun: None,
            more: true,
            given: 0,
            values: 0,
            bytes: 0,
            wanted: FIRST,
        }
    }

    /// Sets how many more reports are wanted. Hardly more than that are then read.
    pub(super) fn want(&mut self, reports: usize) {
        let keys = reports.saturating_mul(self.values.max(1)) / self.given.max(1);
        // The key after the last report shows that the report is complete, and whether there are
        // more.
        self.wanted = keys.saturating_add(1);
    }

    /// Declares that all reports are wanted.
    pub(super) fn want_all(&mut self) {
        self.wanted = usize::MAX;
    }

    /// Returns whether any report is left.
    pub(super) fn more(&self) -> bool {
        self.more || self.begun.is_some()
    }

    /// Returns the revision of the reports. `None` before the first read.
    pub(super) fn revision(&self) -> Option<u64> {
        self.at
    }

    /// Returns the next reports, as many as one answer of the store has. An empty list means the
    /// end.
    pub(super) async fn some(&mut self) -> Result<Vec<Report>, StoreError> {
        let mut reports = Vec::new();
        while reports.is_empty() && self.more() {
            let read = match self.more {
                true => self.read().await?,
                false => Vec::new(),
            };
            let begun = self.begun.take();
            let mut read = begun.into_iter().chain(read).peekable();
            while let Some((key, changes)) = read.next() {
                // Keys of any other form belong to another writer.
                let Some(machine) = keys::machine_of(keys::REPORTS, &key) else {
                    continue;
                };
                if read.peek().is_none() && self.more {
                    self.begun = Some((key, changes));
                    break;
                }
                let base_key = keys::report_base(&machine);
                let base = read.next_if(|(key, _)| *key == base_key);
                let (last_key, base) = base.map_or((key, None), |(key, base)| (key, Some(base)));
                reports.push(Report {
                    machine,
                    last_key,
                    changes,
                    base,
                });
            }
        }
        self.given += reports.len();
        Ok(reports)
    }

    /// Reads the next values: as many as are wanted, within the size of one answer.
    async fn read(&mut self) -> Result<Vec<(String, Entry)>, StoreError> {
        let fitting = (PART * self.values)
            .checked_div(self.bytes)
            .unwrap_or(FIRST);
        // The first reads are small, so that work on them begins soon.
        let limit = self.wanted.min(fitting).min(GROWTH * self.values);
        let limit = limit.max(FIRST);
        let page = self
            .store
            .page(&self.prefix, self.after.as_deref(), limit, self.at);
        let page = page.await?;
        self.at = Some(page.snapshot.revision);
        self.more = page.more;
        let read: Vec<_> = page.snapshot.entries.into_iter().collect();
        if let Some((last, _)) = read.last() {
            self.after = Some(last.clone());
        }
        self.values += read.len();
        self.bytes += read.iter().map(|(_, it)| it.value.len()).sum::<usize>();
        Ok(read)
    }

    /// Returns the result of `take` over all reports. A separate thread takes each part while the
    /// next one arrives.
    async fn all<T: Default + Send + 'static>(
        mut self,
        take: impl Fn(&mut T, &Report) + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut all = T::default();
        let mut some = self.some().await?;
        self.want_all();
        while !some.is_empty() {
            let take = take.clone();
            let taking = apart(move || {
                some.iter().for_each(|report| take(&mut all, report));
                all
            });
            let (taken, next) = tokio::join!(taking, self.some());
            (all, some) = (taken, next?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet_core::record::{ReportBase, ReportChanges, UnitReport, encode};
    use fleet_core::unit::UnitName;

    use super::*;
    use crate::store::{Embedded, Write};

    /// More than one read returns. Every third one has no base.
    const MACHINES: usize = 10 * FIRST;

    fn units(name: &str) -> BTreeMap<UnitName, UnitReport> {
        let name = UnitName::parse(name).expect("valid");
        BTreeMap::from([(name, UnitReport::default())])
    }

    async fn filled() -> Arc<dyn Store> {
        let store = Arc::new(Embedded::in_memory());
        // This key makes the first read end between a report and its base.
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
        for name in said.units.keys() {
            let of_one = report.decode_of(name).expect("one report").units;
            assert_eq!(
                of_one.into_iter().collect::<Vec<_>>(),
                [(name.clone(), UnitReport::default())]
            );
        }
    }

    #[tokio::test]
    async fn report_is_whole_wherever_a_read_ends() {
        let store = filled().await;
        let prefix = || keys::REPORTS.to_owned();
        let mut all = Reports::new(store.clone(), prefix(), None, None);
        let mut read = 0;
        loop {
            let some = all.some().await.expect("read");
            for report in &some {
                is_whole(report, read);
                read += 1;
                // The next page of a listing continues like this.
                if read.is_multiple_of(50) && read < MACHINES {
                    let after = Some(report.last_key.clone());
                    let mut rest = Reports::new(store.clone(), prefix(), after, None);
                    let next = rest.some().await.expect("read");
                    is_whole(&next[0], read);
                }
            }
            if some.is_empty() {
                break;
            }
        }
        assert_eq!(read, MACHINES);
        let snapshot = store.list(&[keys::REPORTS]).await.expect("lists");
        let mut count = 0;
        for (number, report) in reports_in(&snapshot).enumerate() {
            is_whole(&report, number);
            count += 1;
        }
        assert_eq!(count, MACHINES);
    }
}
