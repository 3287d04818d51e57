//! What this machine's reports are written over, so that a change of one unit writes about that
//! one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::record::{ReportBase, ReportChanges, UnitReport};
use fleet_core::unit::UnitName;

/// What there is to tell of each unit; there is one copy of it, in however many of these it is.
pub(super) type Units = BTreeMap<UnitName, Arc<UnitReport>>;

pub(super) type Changes = ReportChanges<Units>;

/// The base of one session's reports.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Of the newest one, whether or not it was written.
    number: u64,
    /// The one that is there; none where nobody knows whether it is.
    there: Option<There>,
}

#[derive(Debug)]
struct There {
    units: Arc<Units>,
    /// The store revision that wrote it.
    at: u64,
}

impl Base {
    /// The changes to write for these units; and the base to write with them, where they would be
    /// too many over the one that is there. Until it is [`Base::written`], it is
    /// unknown whether any is.
    pub(super) fn report(&mut self, units: &Arc<Units>) -> (Changes, Option<ReportBase<Units>>) {
        let nothing = Units::new();
        let base = self.there.as_ref().map_or(&nothing, |there| &there.units);
        let changed: Vec<_> = units
            .iter()
            .filter(|(name, unit)| base.get(*name) != Some(*unit))
            .collect();
        let gone: Vec<_> = base
            .keys()
            .filter(|name| !units.contains_key(*name))
            .collect();
        if is_short(changed.len() + gone.len(), units.len()) {
            let copied = |(name, unit): (&UnitName, &Arc<UnitReport>)| (name.clone(), unit.clone());
            let changes = Changes {
                units: changed.into_iter().map(copied).collect(),
                gone: gone.into_iter().cloned().collect(),
                base: self.there.as_ref().map_or(0, |_| self.number),
                ..Changes::default()
            };
            return (changes, None);
        }
        self.number += 1;
        self.there = None;
        let changes = Changes {
            base: self.number,
            ..Changes::default()
        };
        let base = ReportBase {
            number: self.number,
            units: (**units).clone(),
        };
        (changes, Some(base))
    }

    /// The registry has it, with these units, since that store revision.
    pub(super) fn written(&mut self, units: Arc<Units>, at: u64) {
        self.there = Some(There { units, at });
    }

    /// The store revision that wrote the one which is there.
    pub(super) fn at(&self) -> Option<u64> {
        self.there.as_ref().map(|there| there.at)
    }

    /// Somebody may have written another one.
    pub(super) fn forget(&mut self) {
        self.there = None;
    }
}

/// Whether a report of so many changes is better than a new base. With one at every c-th change of
/// u units a report has c/2 of them on average, and a c-th of the base: least in all where c is the
/// root of 2u.
fn is_short(changes: usize, units: usize) -> bool {
    changes == 0 || changes * changes < 2 * units
}

#[cfg(test)]
mod tests {
    use fleet_core::record::{MachineReport, decode_report, encode};

    use super::*;

    fn name(number: usize) -> UnitName {
        UnitName::parse(&format!("u{number:03}.service")).expect("valid")
    }

    fn unit(restarts: u32) -> Arc<UnitReport> {
        Arc::new(UnitReport {
            restarts,
            ..UnitReport::default()
        })
    }

    /// The registry, as far as reports go.
    #[derive(Default)]
    struct Registry {
        changes: Vec<u8>,
        base: Option<Vec<u8>>,
        written: usize,
    }

    impl Registry {
        fn take(&mut self, base: &mut Base, units: &Arc<Units>) {
            let (changes, new_base) = base.report(units);
            self.changes = encode(&changes);
            self.written += changes.units.len() + changes.gone.len();
            if let Some(new_base) = new_base {
                self.base = Some(encode(&new_base));
                self.written += new_base.units.len();
                base.written(units.clone(), 1);
            }
        }

        fn shows(&self) -> Units {
            let read = decode_report(&self.changes, self.base.as_deref());
            let MachineReport { units, .. } = read.expect("one report");
            units
        }
    }

    /// With a hundred units in the base; what that wrote does not count.
    fn hundred() -> (Base, Registry, Units) {
        let (mut base, mut registry) = (Base::default(), Registry::default());
        let units: Units = (0..100).map(|number| (name(number), unit(0))).collect();
        registry.take(&mut base, &Arc::new(units.clone()));
        registry.written = 0;
        (base, registry, units)
    }

    #[test]
    fn whatever_changes_the_registry_shows_what_there_is() {
        let (mut base, mut registry) = (Base::default(), Registry::default());
        let mut units = Units::new();
        let mut number = 7_usize;
        for step in 0..2000 {
            number = number * 7919 % 10007;
            match number % 40 {
                it if number.is_multiple_of(3) => drop(units.remove(&name(it))),
                it => drop(units.insert(name(it), unit(step))),
            }
            if number.is_multiple_of(50) {
                base.forget();
            }
            let said = Arc::new(units.clone());
            registry.take(&mut base, &said);
            assert_eq!(registry.shows(), units);
        }
        assert!(!units.is_empty() && registry.base.is_some());
    }

    #[test]
    fn a_change_of_one_unit_among_hundred_writes_a_seventh_of_all() {
        let (mut base, mut registry, mut units) = hundred();
        for step in 0..1000 {
            units.insert(name(step * 37 % 100), unit(1 + step as u32));
            registry.take(&mut base, &Arc::new(units.clone()));
        }
        assert!(
            (12_000..16_000).contains(&registry.written),
            "{}",
            registry.written
        );
    }

    #[test]
    fn a_unit_that_changes_all_the_time_is_written_alone() {
        let (mut base, mut registry, mut units) = hundred();
        for step in 1..=1000 {
            units.insert(name(7), unit(step));
            registry.take(&mut base, &Arc::new(units.clone()));
        }
        assert_eq!(registry.written, 1000);
    }
}
