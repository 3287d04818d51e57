//! Selects units of the registry by name or glob pattern, in the order of the arguments.

use anyhow::Context as _;
use fleet_core::api::Unit;
use glob::Pattern;

use crate::local::typed_name;

/// The units that a command's arguments name.
pub(crate) struct Known {
    /// The units, each once, in the order of the arguments.
    pub(crate) units: Vec<Unit>,
    /// The arguments that name no unit.
    pub(crate) unknown: Vec<Unknown>,
}

/// A unit that is missing from the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// The name that the unit would have.
    pub(crate) name: String,
    /// A similar name in the registry. `None` if there is none.
    pub(crate) similar: Option<String>,
}

impl Unknown {
    /// Returns an unknown unit, with the most similar of the known ones.
    pub(crate) fn among<'a>(name: String, units: impl IntoIterator<Item = &'a Unit>) -> Self {
        let similar = units
            .into_iter()
            .filter_map(|unit| Some((typing_errors(&name, &unit.name)?, &unit.name)))
            .min();
        Self {
            similar: similar.map(|(_, unit)| unit.clone()),
            name,
        }
    }

    pub(crate) fn is_pattern(&self) -> bool {
        is_pattern(&self.name)
    }

    /// Returns `; did you mean hello.service?`, or an empty text.
    pub(crate) fn hint(&self) -> String {
        let similar = self.similar.as_ref();
        similar.map_or_else(String::new, |similar| format!("; did you mean {similar}?"))
    }

    /// Returns the sentence of fleet 1.0, `Unit helo.service does not exist.`, with the similar
    /// name.
    pub(crate) fn sentence(&self) -> String {
        let sentence = format!("Unit {} does not exist.", self.name);
        match &self.similar {
            Some(similar) => format!("{sentence} Did you mean {similar}?"),
            None => sentence,
        }
    }
}

/// Returns the number of typing errors that turn one name into the other. `None` if they are
/// too many for a misspelling.
fn typing_errors(typed: &str, name: &str) -> Option<usize> {
    // Most names end in `.service`, which does not distinguish them.
    let kind = |name: &str| name.rfind('.').unwrap_or(name.len());
    let (typed, name) = match (typed.split_at(kind(typed)), name.split_at(kind(name))) {
        ((typed, same), (name, kind)) if same == kind => (typed, name),
        _ => (typed, name),
    };
    let errors = strsim::damerau_levenshtein(typed, name);
    let length = typed.chars().count();
    (errors <= (length / 3).max(1) && errors < length).then_some(errors)
}

/// Returns the units that `arguments` name. A malformed pattern is an error.
pub(crate) fn known_units(mut units: Vec<Unit>, arguments: &[String]) -> anyhow::Result<Known> {
    let mut known = Known {
        units: Vec::new(),
        unknown: Vec::new(),
    };
    let mut unknown = Vec::new();
    for argument in arguments {
        let (wanted, name) = if is_pattern(argument) {
            let pattern = Pattern::new(argument)
                .with_context(|| format!("malformed pattern \"{argument}\""))?;
            (Wanted::Matching(pattern), argument.clone())
        } else {
            let name =
                typed_name(argument).map_or_else(|_| argument.clone(), |name| name.to_string());
            (Wanted::Named(name.clone()), name)
        };
        let taken_before = known.units.iter().any(|unit| wanted.is(unit));
        let before = known.units.len();
        let (found, rest) = units.into_iter().partition(|unit| wanted.is(unit));
        known.units.extend::<Vec<Unit>>(found);
        units = rest;
        if known.units.len() == before && !taken_before {
            unknown.push(name);
        }
    }
    let all = || known.units.iter().chain(&units);
    known.unknown = unknown
        .into_iter()
        .map(|name| Unknown::among(name, all()))
        .collect();
    Ok(known)
}

/// Returns whether an argument is a glob pattern.
pub(crate) fn is_pattern(argument: &str) -> bool {
    argument.contains(['*', '?', '['])
}

enum Wanted {
    Named(String),
    Matching(Pattern),
}

impl Wanted {
    fn is(&self, unit: &Unit) -> bool {
        match self {
            Self::Named(name) => unit.name == *name,
            Self::Matching(pattern) => pattern.matches(&unit.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(arguments: &[&str]) -> (Vec<String>, Vec<String>) {
        let units = ["a.service", "b.service", "c.timer"].map(|name| Unit {
            name: name.into(),
            ..Unit::default()
        });
        let arguments: Vec<String> = arguments.iter().map(|&text| text.into()).collect();
        let known = known_units(units.to_vec(), &arguments).expect("valid patterns");
        let names = known.units.into_iter().map(|unit| unit.name).collect();
        let unknown = known.unknown.into_iter().map(|unknown| unknown.name);
        (names, unknown.collect())
    }

    fn names(arguments: &[&str]) -> Vec<String> {
        pick(arguments).0
    }

    #[test]
    fn units_are_in_the_order_of_arguments_and_once() {
        assert_eq!(
            names(&["c.timer", "b", "a.service", "c.timer"]),
            ["c.timer", "b.service", "a.service"]
        );
    }

    #[test]
    fn a_pattern_names_units_of_every_kind() {
        assert_eq!(names(&["[bc]*"]), ["b.service", "c.timer"]);
        assert_eq!(names(&["*.service"]), ["a.service", "b.service"]);
    }

    #[test]
    fn argument_without_a_unit_is_reported() {
        let unknown = |arguments: &[&str]| pick(arguments).1;
        assert_eq!(unknown(&["a", "x", "bad name"]), ["x.service", "bad name"]);
        assert_eq!(unknown(&["*", "a", "z*"]), ["z*"]);
    }

    #[test]
    fn unit_with_a_similar_name_is_suggested() {
        let units = ["hello.service", "help.service", "a.service"].map(|name| Unit {
            name: name.into(),
            ..Unit::default()
        });
        let similar = |name: &str| Unknown::among(name.into(), &units).similar;
        assert_eq!(similar("helo.service").as_deref(), Some("hello.service"));
        assert_eq!(similar("ehllo.service").as_deref(), Some("hello.service"));
        assert_eq!(similar("hello.timer").as_deref(), None);
        assert_eq!(similar("b.service"), None);
        assert_eq!(similar("nosuch.service"), None);
    }

    #[test]
    fn a_malformed_pattern_is_an_error() {
        assert!(known_units(Vec::new(), &["[a".to_owned()]).is_err());
    }
}
