//! Which units a machine should have, and why.
//!
//! Every agent decides with this function, from the same records. The API explains the decision
//! with the same function.

use std::collections::BTreeMap;
use std::fmt;

use crate::machine::{Metadata, Scheduling};
use crate::unit::{FleetOptions, TargetState, UnitName};

/// A unit, as far as placing needs it.
#[derive(Clone, Copy, Debug)]
pub struct Placeable<'a> {
    /// Its name.
    pub name: &'a UnitName,
    /// The store revision that made it: between units that conflict the one created first wins.
    pub created: u64,
    /// The target state.
    pub target: TargetState,
    /// Its `[X-Fleet]` section.
    pub options: &'a FleetOptions,
}

/// Why a unit does not run on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its target state is `inactive`.
    Inactive,
    /// A template is stored for its instances, and is only on machines while it is loaded.
    Template,
    /// It is not a global unit.
    NotGlobal,
    /// An option that may restrict it cannot be understood: this line and text.
    Misread(String),
    /// The machine's metadata does not match.
    Metadata {
        /// The key.
        key: String,
        /// The values that would match.
        accepted: Vec<String>,
        /// The machine's value.
        found: Option<String>,
    },
    /// A unit that was created before it, and runs here, conflicts with it.
    Conflict(UnitName),
    /// Nothing new starts on the machine.
    Cordoned,
    /// Everything is stopped on the machine.
    Drained,
}

impl Reason {
    /// Whether it takes the unit away from a machine that runs it by a change of placing. Such a
    /// change may concern many machines at once, so it keeps to the unit's budget. The others are
    /// orders about this unit or this machine.
    pub fn narrows(&self) -> bool {
        match self {
            Self::NotGlobal | Self::Misread(_) | Self::Metadata { .. } | Self::Conflict(_) => true,
            Self::Inactive | Self::Template | Self::Cordoned | Self::Drained => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inactive => write!(f, "its target state is inactive"),
            Self::Template => write!(f, "it is a template"),
            Self::NotGlobal => write!(f, "it is not a global unit"),
            Self::Misread(text) => write!(f, "it runs nowhere until its file is fixed: {text}"),
            Self::Metadata {
                key,
                accepted,
                found,
            } => {
                let accepted = accepted.join(" or ");
                match found {
                    Some(found) => write!(f, "it needs {key}={accepted}, and {key}={found} here"),
                    None => write!(f, "it needs {key}={accepted}, and {key} is not set here"),
                }
            }
            Self::Conflict(other) => {
                write!(f, "it conflicts with {other}, which was created first")
            }
            Self::Cordoned => write!(f, "the machine is cordoned, and nothing new starts there"),
            Self::Drained => write!(f, "the machine is drained, and nothing runs there"),
        }
    }
}

/// Whether a unit belongs on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Run,
    /// It does not.
    Not(Reason),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run => write!(f, "its metadata matches"),
            Self::Not(reason) => reason.fmt(f),
        }
    }
}

/// Judges every unit for a machine with that metadata. The order of `units` does not matter.
pub fn place<'a>(
    units: impl IntoIterator<Item = Placeable<'a>>,
    metadata: &Metadata,
) -> BTreeMap<UnitName, Verdict> {
    let mut units: Vec<Placeable<'_>> = units.into_iter().collect();
    units.sort_by_key(|unit| (unit.created, unit.name));
    let mut running: Vec<Placeable<'_>> = Vec::new();
    // Most units exclude none: these need to be held against those that do, and no others.
    let mut excluding: Vec<Placeable<'_>> = Vec::new();
    let mut verdicts = BTreeMap::new();
    for unit in units {
        let excludes = !unit.options.conflicts.is_empty() && !unit.name.is_template();
        let rivals = if excludes { &running } else { &excluding };
        let verdict = match refusal(&unit, metadata, rivals) {
            Some(reason) => Verdict::Not(reason),
            None => {
                running.push(unit);
                excluding.extend(excludes.then_some(unit));
                Verdict::Run
            }
        };
        verdicts.insert(unit.name.clone(), verdict);
    }
    verdicts
}

/// Limits a verdict on a machine that is cordoned or drained. `has`: the machine has the unit
/// already.
pub fn restrict(verdict: Verdict, scheduling: Scheduling, has: bool) -> Verdict {
    match (scheduling, &verdict) {
        (_, Verdict::Not(_)) | (Scheduling::Normal, _) => verdict,
        (Scheduling::Cordoned, Verdict::Run) if has => verdict,
        (Scheduling::Cordoned, Verdict::Run) => Verdict::Not(Reason::Cordoned),
        (Scheduling::Drained, Verdict::Run) => Verdict::Not(Reason::Drained),
    }
}

/// Whether either unit says that it must not run beside the other. A template does not run: what it
/// says is for its instances.
pub fn conflict(a: &Placeable<'_>, b: &Placeable<'_>) -> bool {
    if a.name.is_template() || b.name.is_template() {
        return false;
    }
    let excludes = |one: &Placeable<'_>, other: &Placeable<'_>| {
        one.options
            .conflicting_pattern(other.name.as_str())
            .is_some()
    };
    excludes(a, b) || excludes(b, a)
}

/// Whether the machines of a template depend on the instance.
fn is_by_instance(unit: &Placeable<'_>) -> bool {
    let mut accepted = unit.options.machine_metadata.values().flatten();
    accepted.any(|value| value.contains('%'))
}

/// `rivals`: the units that run there and may conflict with it.
fn refusal(unit: &Placeable<'_>, metadata: &Metadata, rivals: &[Placeable<'_>]) -> Option<Reason> {
    if unit.name.is_template() && (unit.target != TargetState::Loaded || is_by_instance(unit)) {
        return Some(Reason::Template);
    }
    if !unit.options.global {
        return Some(Reason::NotGlobal);
    }
    if unit.target == TargetState::Inactive {
        return Some(Reason::Inactive);
    }
    if let Some(misread) = unit.options.unreadable() {
        return Some(Reason::Misread(misread.to_string()));
    }
    for (key, accepted) in &unit.options.machine_metadata {
        let found = metadata.get(key);
        if !found.is_some_and(|value| accepted.contains(value)) {
            return Some(Reason::Metadata {
                key: key.clone(),
                accepted: accepted.iter().cloned().collect(),
                found: found.cloned(),
            });
        }
    }
    rivals
        .iter()
        .find(|other| conflict(unit, other))
        .map(|other| Reason::Conflict(other.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{Content, Parsed};
    use proptest::prelude::*;

    struct Given {
        parsed: Parsed,
        created: u64,
        target: TargetState,
    }

    fn given(created: u64, name: &str, fleet: &str) -> Given {
        let content =
            Content::from(format!("[Service]\nExecStart=/x\n[X-Fleet]\n{fleet}").as_str());
        Given {
            parsed: Parsed::parse(UnitName::parse(name).expect("valid"), &content),
            created,
            target: TargetState::Launched,
        }
    }

    fn verdicts(units: &[Given], metadata: &Metadata) -> BTreeMap<UnitName, Verdict> {
        let units = units.iter().map(|given| Placeable {
            name: &given.parsed.name,
            created: given.created,
            target: given.target,
            options: &given.parsed.options,
        });
        place(units, metadata)
    }

    fn show(units: &[Given], metadata: &[(&str, &str)]) -> String {
        let metadata = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        verdicts(units, &metadata.collect())
            .iter()
            .map(|(name, verdict)| format!("{name}: {verdict}\n"))
            .collect()
    }

    #[test]
    fn every_verdict_says_why() {
        let mut inactive = given(5, "e.service", "Global=true");
        inactive.target = TargetState::Inactive;
        let units = [
            given(
                1,
                "a.service",
                "Global=true\nMachineMetadata=az=1\nMachineMetadata=az=2",
            ),
            given(2, "b.service", "Global=true\nMachineMetadata=gpu=yes"),
            given(3, "c@.service", "Global=true"),
            given(4, "d.service", ""),
            inactive,
        ];
        insta::assert_snapshot!(show(&units, &[("az", "3")]), @r"
        a.service: it needs az=1 or 2, and az=3 here
        b.service: it needs gpu=yes, and gpu is not set here
        c@.service: it is a template
        d.service: it is not a global unit
        e.service: its target state is inactive
        ");
        insta::assert_snapshot!(show(&units, &[("az", "2"), ("gpu", "yes")]), @r"
        a.service: its metadata matches
        b.service: its metadata matches
        c@.service: it is a template
        d.service: it is not a global unit
        e.service: its target state is inactive
        ");
    }

    #[test]
    fn loaded_template_is_placed_beside_units_that_conflict() {
        let loaded = |created, name, fleet| {
            let mut given = given(created, name, fleet);
            given.target = TargetState::Loaded;
            given
        };
        let units = [
            loaded(1, "a@.service", "Global=true\nConflicts=a@*.service"),
            given(2, "a@1.service", "Global=true\nConflicts=a@*.service"),
            loaded(3, "b@.service", "Global=true\nMachineMetadata=az=1"),
            loaded(4, "c@.service", "Global=true\nMachineMetadata=az=%i"),
            loaded(5, "d@.service", ""),
        ];
        insta::assert_snapshot!(show(&units, &[("az", "2")]), @r"
        a@.service: its metadata matches
        a@1.service: its metadata matches
        b@.service: it needs az=1, and az=2 here
        c@.service: it is a template
        d@.service: it is not a global unit
        ");
    }

    #[test]
    fn a_requirement_that_was_misread_matches_no_machine() {
        for section in [
            "MachineMetadata=role:web",
            "MachineMetadata=role",
            "MachineMetadata=role=web env=prod",
            "MachineMetadata=role==web",
            "MachineMetadata==web",
            "MachineMetadata=role=",
            "MachineMetadata=",
            "MachineMetadata=role=web # front",
            "MachineMetadata=role!=db",
            "MachineMetadata=\"role=web\" \"env:prod\"",
            "MachineMetadta=role=web",
            "X-ConditionMachineMetadta=role=web",
            "Conflicts=web[.service",
            "[X-fleet]\nMachineMetadata=role=web",
            "[Unit]\nMachineMetadata=role=web",
        ] {
            let unit = given(1, "a.service", &format!("Global=true\n{section}"));
            let role = Metadata::from([("role".to_owned(), "web".to_owned())]);
            for metadata in [Metadata::new(), role] {
                let verdicts = verdicts(std::slice::from_ref(&unit), &metadata);
                let verdict = &verdicts[&unit.parsed.name];
                assert!(
                    matches!(verdict, Verdict::Not(Reason::Misread(_))),
                    "{section}: {verdict}"
                );
            }
        }
    }

    #[test]
    fn an_option_that_restricts_nothing_keeps_no_unit_away() {
        for section in ["Colour=blue", "MaxUnavailable=many", "Conflicts="] {
            let unit = given(1, "a.service", &format!("Global=true\n{section}"));
            let verdicts = verdicts(std::slice::from_ref(&unit), &Metadata::new());
            assert_eq!(verdicts[&unit.parsed.name], Verdict::Run, "{section}");
        }
    }

    #[test]
    fn of_two_units_that_conflict_the_one_created_first_runs() {
        let units = [
            given(2, "a.service", "Global=true"),
            given(1, "b.service", "Global=true\nConflicts=a*"),
        ];
        insta::assert_snapshot!(show(&units, &[]), @r"
        a.service: it conflicts with b.service, which was created first
        b.service: its metadata matches
        ");
    }

    #[test]
    fn a_unit_that_does_not_run_here_keeps_nobody_away() {
        let units = [
            given(
                1,
                "a.service",
                "Global=true\nConflicts=b.service\nMachineMetadata=az=1",
            ),
            given(2, "b.service", "Global=true"),
        ];
        insta::assert_snapshot!(show(&units, &[("az", "2")]), @r"
        a.service: it needs az=1, and az=2 here
        b.service: its metadata matches
        ");
    }

    proptest! {
        #[test]
        fn placing_ignores_order_and_never_runs_two_in_conflict(
            conflicts in prop::collection::vec(prop::sample::select(vec!["a*", "b*", "*1*", "nothing", ""]), 6),
            order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
        ) {
            let names = ["a1.service", "a2.service", "b1.service", "b2.service", "c1.timer", "c2.timer"];
            let unit = |i: usize| {
                // Two units of the same age: the name decides.
                given(u64::try_from(i / 2).expect("small"), names[i], &format!("Global=true\nConflicts={}", conflicts[i]))
            };
            let sorted: Vec<Given> = (0..6).map(unit).collect();
            let shuffled: Vec<Given> = order.into_iter().map(unit).collect();
            let placed = verdicts(&sorted, &Metadata::new());
            prop_assert_eq!(&placed, &verdicts(&shuffled, &Metadata::new()));
            let runs: Vec<&Given> = sorted.iter().filter(|given| placed[&given.parsed.name] == Verdict::Run).collect();
            for one in &runs {
                for other in &runs {
                    if one.parsed.name != other.parsed.name {
                        prop_assert_eq!(one.parsed.options.conflicting_pattern(other.parsed.name.as_str()), None);
                    }
                }
            }
        }
    }
}
