//! The machines' reports, read part by part at one revision of the registry: they are most of it.

use std::sync::Arc;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{self, Listed, MachineReport, RecordError, Units};
use fleet_core::unit::UnitName;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Api, apart};
use crate::store::{Entry, Snapshot, Store, StoreError};

/// How many values are read first, before their size and the wanted number are known; also the
/// minimum.
const FIRST: usize = 60;

/// How large an answer of the store is to be, in bytes. For each, etcd looks at all keys behind it, to count them.
const PART: usize = 4 << 20;

/// How many times as many as all before are read at once.
const GROWTH: usize = 8;

/// A report as the registry holds it.
pub(super) struct Report {
    pub(super) machine: MachineId,
    /// The last key that it takes.
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

    /// Returns its report of one unit; the others are skipped.
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

/// Returns the result of `take` over all reports of that revision. If the registry no longer keeps
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

/// Reads reports one after the other.
pub(super) struct Reports {
    store: Arc<dyn Store>,
    prefix: String,
    /// The revision that all of them are of, once one was read.
    at: Option<u64>,
    /// The last key that was read.
    after: Option<String>,
    /// The value that was read last, if its report may not be complete.
    begun: Option<(String, Entry)>,
    more: bool,
    /// How many reports were given.
    given: usize,
    /// How many values were read, of how many bytes.
    values: usize,
    bytes: usize,
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
            begun: None,
            more: true,
            given: 0,
            values: 0,
            bytes: 0,
            wanted: FIRST,
        }
    }

    /// Sets how many more are wanted: hardly more are read then.
    pub(super) fn want(&mut self, reports: usize) {
        let keys = reports.saturating_mul(self.values.max(1)) / self.given.max(1);
        // What is behind the last one tells that it is whole, and whether there are more.
        self.wanted = keys.saturating_add(1);
    }

    /// Sets that all of them are wanted.
    pub(super) fn want_all(&mut self) {
        self.wanted = usize::MAX;
    }

    /// Whether any key is left.
    pub(super) fn more(&self) -> bool {
        self.more || self.begun.is_some()
    }

    /// The revision that they are of; none before the first.
    pub(super) fn revision(&self) -> Option<u64> {
        self.at
    }

    /// The next ones, which one answer of the store has; none after the last.
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
                // Keys of any other form are none of ours.
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

    /// Reads on: as much as is wanted, and no more than one answer is to have.
    async fn read(&mut self) -> Result<Vec<(String, Entry)>, StoreError> {
        let fitting = (PART * self.values)
            .checked_div(self.bytes)
            .unwrap_or(FIRST);
        // The first ones are small, so that work on them begins soon.
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

    /// Returns the result over all of them: a separate thread takes each while the next ones
    /// arrive.
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

    /// More than are read at once; of every third one there is no base.
    const MACHINES: usize = 10 * FIRST;

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
        for name in said.units.keys() {
            let of_one = report.decode_of(name).expect("one report").units;
            assert_eq!(
                of_one.into_iter().collect::<Vec<_>>(),
                [(name.clone(), UnitReport::default())]
            );
        }
    }

    #[tokio::test]
    async fn a_report_is_whole_wherever_one_read_ends_and_the_next_begins() {
        let store = filled().await;
        let prefix = || keys::REPORTS.to_owned();
        let mut all = Reports::new(store.clone(), prefix(), None, None);
        let mut read = 0;
        loop {
            let some = all.some().await.expect("read");
            for report in &some {
                is_whole(report, read);
                read += 1;
                // As the next page of a listing goes on.
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
