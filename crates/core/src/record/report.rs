//! What a machine says of its units.
//!
//! A report names every unit of its machine, and must not be written whole for each change of one of them. So it lies in two
//! values: at `reports/<id>` what changed lately, over `reports/<id>/base`, which is written anew when that became long. Only
//! that machine writes them, in one commit where it writes both, so whoever reads both at one revision has one report.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{RecordError, decode, is_zero};
use crate::unit::UnitName;

/// What one machine's systemd says of fleet's units there. `U`: as much of a unit as the reader wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MachineReport<U = UnitReport> {
    /// The units whose files fleet has put there.
    pub units: BTreeMap<UnitName, U>,
    /// What is wrong there, and with what: a unit, a file, the state directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<String, String>,
    /// Why it says nothing of its units: they were not looked at yet, say. None where `units` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// A report as it is written: `reports/<id>`. One over no base is a [`MachineReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportChanges<U = UnitReport> {
    /// The units that the base does not have so.
    pub units: BTreeMap<UnitName, U>,
    /// The units of the base which are not there any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<UnitName>,
    /// The number of the base that it is written over; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base: u64,
    /// As in the report.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<String, String>,
    /// As in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// All units of a machine as they were some changes ago: `reports/<id>/base`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportBase<U = UnitReport> {
    /// Tells the bases of one session from each other; never 0.
    pub number: u64,
    /// Its units.
    pub units: BTreeMap<UnitName, U>,
}

/// Reads the report of a machine from its values at `reports/<id>` and, if that is there, `reports/<id>/base`.
pub fn decode_report<'a, U: Deserialize<'a>>(
    changes: &'a [u8],
    base: Option<&'a [u8]>,
) -> Result<MachineReport<U>, RecordError> {
    let changes: ReportChanges<U> = decode(changes)?;
    let mut units = match changes.base {
        0 => BTreeMap::new(),
        number => {
            let base: ReportBase<U> = decode(base.ok_or(RecordError::NoBase)?)?;
            if base.number != number {
                return Err(RecordError::NoBase);
            }
            base.units
        }
    };
    units.retain(|name, _| !changes.gone.contains(name));
    units.extend(changes.units);
    Ok(MachineReport {
        units,
        problems: changes.problems,
        unknown: changes.unknown,
    })
}

/// One unit of a [`MachineReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitReport {
    /// systemd's load state, such as `loaded`.
    pub load: String,
    /// systemd's active state, such as `active`.
    pub active: String,
    /// systemd's sub state, such as `running`.
    pub sub: String,
    /// The revision whose file is in place.
    pub revision: u64,
    /// That revision's compatible hash.
    pub hash: String,
    /// When systemd last changed its state, in milliseconds since 1970; 0 if it never did.
    pub since: u64,
    /// How often systemd restarted it by itself (`NRestarts`).
    #[serde(default)]
    pub restarts: u32,
    /// systemd's `Result`, such as `success` or `exit-code`; empty for kinds that have none.
    #[serde(default)]
    pub result: String,
    /// Whether fleet has started it there. Nothing else tells a oneshot that ran from one that is only loaded:
    /// systemd forgets both at once.
    #[serde(default)]
    pub launched: bool,
    /// Whether it does what it should, at this moment.
    pub ready: bool,
    /// Whether it is ready, and has been for `MinReadySec` without a restart.
    #[serde(default)]
    pub available: bool,
    /// Whether systemd skipped its start because of a condition in its file (`ConditionPathExists=` and others). It is
    /// ready then: it does what its file asks for on such a machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Why it will not become ready by itself, for people; none while it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether it has another revision than the registry's stable one, and waits with that for the leader's grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// The store revision that wrote the grant which all of this takes into account; 0 without one. Until the newest
    /// grant is confirmed so, the machine may be about to act on it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub grant: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::encode;

    fn name(text: &str) -> UnitName {
        UnitName::parse(text).expect("valid")
    }

    fn units(states: &[(&str, &str)]) -> BTreeMap<UnitName, UnitReport> {
        let unit = |active: &str| UnitReport {
            active: active.to_owned(),
            ..UnitReport::default()
        };
        let units = states.iter();
        units.map(|(it, active)| (name(it), unit(active))).collect()
    }

    fn changes(base: u64) -> Vec<u8> {
        encode(&ReportChanges {
            units: units(&[("b.service", "failed"), ("d.service", "active")]),
            gone: BTreeSet::from([name("c.service")]),
            base,
            problems: BTreeMap::from([("disk".to_owned(), "full".to_owned())]),
            unknown: None,
        })
    }

    fn base(number: u64) -> Vec<u8> {
        let units = units(&[
            ("a.service", "active"),
            ("b.service", "active"),
            ("c.service", "active"),
        ]);
        encode(&ReportBase { number, units })
    }

    #[test]
    fn a_report_is_its_changes_over_its_base() {
        let report: MachineReport = decode_report(&changes(7), Some(&base(7))).expect("both parts");
        let expected = [
            ("a.service", "active"),
            ("b.service", "failed"),
            ("d.service", "active"),
        ];
        assert_eq!(report.units, units(&expected));
        assert_eq!(report.problems["disk"], "full");
    }

    #[test]
    fn a_report_over_no_base_is_whole_whatever_lies_beside_it() {
        let whole = MachineReport {
            units: units(&[("a.service", "active")]),
            ..MachineReport::default()
        };
        for base in [None, Some(&*base(7)), Some(b"rubbish")] {
            let read = decode_report(&encode(&whole), base);
            assert_eq!(read.expect("whole"), whole);
        }
    }

    #[test]
    fn a_report_over_another_base_says_nothing() {
        for base in [None, Some(&*base(6))] {
            let error = decode_report::<UnitReport>(&changes(7), base).expect_err("no base");
            assert!(matches!(error, RecordError::NoBase), "{error}");
        }
        let error = decode_report::<UnitReport>(&changes(7), Some(b"{}")).expect_err("damaged");
        assert!(matches!(error, RecordError::Damaged(_)), "{error}");
    }
}
