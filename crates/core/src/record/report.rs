//! A machine's report about its units.
//!
//! A report names every unit of its machine. Writing all of it for each change of one unit would
//! cost too much, so it is stored as two values. `reports/<id>/base` holds all units, and
//! `reports/<id>` holds the recent changes over it. The base is written again once the changes have
//! grown long. Only the machine itself writes them, in one commit if it writes both. A reader of
//! both at one revision therefore sees one report.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{RecordError, decode, is_zero};
use crate::unit::UnitName;

/// The reports of units, by name.
pub type UnitReports = BTreeMap<UnitName, UnitReport>;

/// One machine's report about its units. `C` is the form in which the reader keeps the units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MachineReport<C = UnitReports> {
    /// The units whose files fleet has put on the machine.
    pub units: C,
    /// The machine's problems, by subject: a unit, a file, the state directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<String, String>,
    /// Why the report has no units, for example because they were not read yet. `None` if `units`
    /// is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// A report as it is written: `reports/<id>`. Without a base it is a [`MachineReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportChanges<C = UnitReports> {
    /// The units that differ from the base.
    pub units: C,
    /// The units of the base that have disappeared.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<UnitName>,
    /// The number of its base; 0 if it has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base: u64,
    /// The problems, as in the report.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<String, String>,
    /// The reason for having no units, as in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// All units of a machine at an earlier time: `reports/<id>/base`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportBase<C = UnitReports> {
    /// The number that distinguishes the bases of one session; never 0.
    pub number: u64,
    /// The units.
    pub units: C,
}

/// The form in which a reader keeps a report's units: complete by name, [`Listed`], or none
/// ([`IgnoredAny`]).
pub trait Units: Default {
    /// Returns these units, with the units of `base` that are neither among them nor `gone`.
    fn over(self, base: Self, gone: &BTreeSet<UnitName>) -> Self;
}

impl<U> Units for BTreeMap<UnitName, U> {
    fn over(self, mut base: Self, gone: &BTreeSet<UnitName>) -> Self {
        base.retain(|name, _| !gone.contains(name));
        base.extend(self);
        base
    }
}

impl Units for IgnoredAny {
    fn over(self, _base: Self, _gone: &BTreeSet<UnitName>) -> Self {
        self
    }
}

/// A report's units, ordered by name and borrowed from the text, for readers of thousands of
/// reports. `U` is the wanted part of a unit.
#[derive(Debug)]
pub struct Listed<'a, U>(Vec<(Cow<'a, str>, U)>);

impl<U> Default for Listed<'_, U> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, U> IntoIterator for Listed<'a, U> {
    type Item = (Cow<'a, str>, U);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<U> Units for Listed<'_, U> {
    fn over(self, base: Self, gone: &BTreeSet<UnitName>) -> Self {
        let stays = |name: &str| gone.iter().all(|gone| gone.as_str() != name);
        let base = base.0.into_iter().filter(|(name, _)| stays(name));
        let mut base = base.peekable();
        let mut units = Vec::with_capacity(self.0.len() + base.size_hint().1.unwrap_or(0));
        for (name, unit) in self.0 {
            while let Some(before) = base.next_if(|(other, _)| *other < name) {
                units.push(before);
            }
            base.next_if(|(other, _)| *other == name);
            units.push((name, unit));
        }
        units.extend(base);
        Self(units)
    }
}

impl<'de: 'a, 'a, U: Deserialize<'de>> Deserialize<'de> for Listed<'a, U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<'a, U>(PhantomData<(&'a str, U)>);

        impl<'de: 'a, 'a, U: Deserialize<'de>> Visitor<'de> for Names<'a, U> {
            type Value = Listed<'a, U>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("units by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut units = Vec::new();
                while let Some((Name(name), unit)) = map.next_entry()? {
                    units.push((name, unit));
                }
                // Writers sort them. If a name is repeated, the last entry counts, as everywhere.
                if !units.is_sorted_by(|(a, _), (b, _)| a < b) {
                    units = BTreeMap::from_iter(units).into_iter().collect();
                }
                Ok(Listed(units))
            }
        }

        deserializer.deserialize_map(Names(PhantomData))
    }
}

/// The name of a unit, borrowed from the text.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a unit")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                UnitName::check(name).map_err(E::custom)?;
                Ok(Name(name.into()))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Name<'de>, E> {
                UnitName::check(name).map_err(E::custom)?;
                Ok(Name(name.to_owned().into()))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Reads a machine's report from its values at `reports/<id>` and, if present, `reports/<id>/base`.
pub fn decode_report<'a, C: Units + Deserialize<'a>>(
    changes: &'a [u8],
    base: Option<&'a [u8]>,
) -> Result<MachineReport<C>, RecordError> {
    let changes: ReportChanges<C> = decode(changes)?;
    let below = match changes.base {
        0 => C::default(),
        number => {
            let base: ReportBase<C> = decode(base.ok_or(RecordError::NoBase)?)?;
            if base.number != number {
                return Err(RecordError::NoBase);
            }
            base.units
        }
    };
    Ok(MachineReport {
        units: changes.units.over(below, &changes.gone),
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
    /// The compatible hash of that revision.
    pub hash: String,
    /// When systemd last changed the unit's state, in milliseconds since 1970; 0 if never.
    pub since: u64,
    /// The number of restarts that systemd made by itself (`NRestarts`).
    #[serde(default)]
    pub restarts: u32,
    /// systemd's `Result`, such as `success` or `exit-code`; empty for kinds without one.
    #[serde(default)]
    pub result: String,
    /// Whether fleet has started the unit there. It distinguishes a oneshot that ran from one that
    /// is only loaded: systemd unloads both at once.
    #[serde(default)]
    pub launched: bool,
    /// Whether the unit is ready at this moment.
    pub ready: bool,
    /// Whether the unit has been ready for `MinReadySec` without a restart.
    #[serde(default)]
    pub available: bool,
    /// Whether it was once available for a minute, or for `MinReadySec` if that is longer, since
    /// its start. A later failure is not its revision's fault.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    /// Whether systemd skipped its start because of a condition in its file, such as
    /// `ConditionPathExists=`. Such a unit is ready: its file asks for that on such a machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Why it cannot become ready by itself, for people. `None` if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether it has another revision than the registry's stable one, and waits for the leader's
    /// grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// Whether the unit does not belong there any more, and waits for the leader's grant to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The store revision of the newest grant that this report takes into account; 0 if none. Until
    /// the newest grant is confirmed here, the machine may be about to act on it.
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
    fn report_is_its_changes_over_its_base() {
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
    fn listed_report_equals_the_report() {
        let listed = |changes: &[u8], base: &[u8]| {
            let report = decode_report::<Listed<'_, UnitReport>>(changes, Some(base));
            let units = report.expect("both parts").units.into_iter();
            let units = units.map(|(name, unit)| (name.into_owned(), unit.active));
            units.collect::<Vec<_>>()
        };
        let all = |changes: &[u8], base: &[u8]| {
            let report: MachineReport = decode_report(changes, Some(base)).expect("both parts");
            let units = report.units.into_iter();
            let units = units.map(|(name, unit)| (name.to_string(), unit.active));
            units.collect::<Vec<_>>()
        };
        // The input is unsorted and repeats a name.
        let unit = |active: &str| {
            let unit = UnitReport {
                active: active.to_owned(),
                ..UnitReport::default()
            };
            serde_json::to_string(&unit).expect("JSON")
        };
        let disordered = format!(
            r#"{{"format":1,"units":{{"z.service":{0},"a\\x2d.service":{0},"z.service":{1}}},"base":7}}"#,
            unit("active"),
            unit("failed"),
        );
        for changes in [&changes(7)[..], &changes(0), disordered.as_bytes()] {
            let said = listed(changes, &base(7));
            assert_eq!(said, all(changes, &base(7)));
            assert!(said.is_sorted() && said.len() > 1, "{said:?}");
        }
        let bad = br#"{"format":1,"units":{"../a.service":null}}"#;
        let error = decode_report::<Listed<'_, IgnoredAny>>(bad, None).expect_err("no name");
        assert!(
            error.to_string().contains("invalid character '/'"),
            "{error}"
        );
        let none = decode_report::<IgnoredAny>(&changes(7), Some(&base(7))).expect("both parts");
        assert_eq!(none.problems["disk"], "full");
    }

    #[test]
    fn report_without_a_base_ignores_any_base() {
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
    fn report_over_another_base_is_refused() {
        for base in [None, Some(&*base(6))] {
            let error = decode_report::<UnitReports>(&changes(7), base).expect_err("no base");
            assert!(matches!(error, RecordError::NoBase), "{error}");
        }
        let error = decode_report::<UnitReports>(&changes(7), Some(b"{}")).expect_err("damaged");
        assert!(matches!(error, RecordError::Damaged(_)), "{error}");
    }
}
