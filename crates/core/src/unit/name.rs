//! Unit names: `prefix.type`, `prefix@.type` (a template) and `prefix@instance.type`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The longest name in bytes, for systemd (`UNIT_NAME_MAX` counts a closing zero too) and for file
/// names.
pub const NAME_MAX: usize = 255;

/// The kind of a unit, which is the suffix of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the variants are systemd's own words")]
pub enum UnitKind {
    Automount,
    Busname,
    Device,
    Mount,
    Path,
    Scope,
    Service,
    Slice,
    Snapshot,
    Socket,
    Swap,
    Target,
    Timer,
}

impl UnitKind {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Automount, "automount"),
        (Self::Busname, "busname"),
        (Self::Device, "device"),
        (Self::Mount, "mount"),
        (Self::Path, "path"),
        (Self::Scope, "scope"),
        (Self::Service, "service"),
        (Self::Slice, "slice"),
        (Self::Snapshot, "snapshot"),
        (Self::Socket, "socket"),
        (Self::Swap, "swap"),
        (Self::Target, "target"),
        (Self::Timer, "timer"),
    ];

    /// Returns the suffix, without its dot.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, suffix)| suffix)
    }

    fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == suffix)
            .map(|(kind, _)| *kind)
    }

    /// Returns whether fleet 1.0 allowed templates of this kind.
    fn may_be_template(self) -> bool {
        matches!(
            self,
            Self::Path | Self::Service | Self::Socket | Self::Target | Self::Timer
        )
    }
}

/// The reason why a string is no unit name. The texts are fleet 1.0's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The empty string.
    #[error("unit name cannot be empty")]
    Empty,
    /// Longer than [`NAME_MAX`] bytes.
    #[error("unit name is {0} bytes long (max {NAME_MAX})")]
    TooLong(usize),
    /// No dot, or an empty name or suffix.
    #[error("unit name \"{0}\" must be of the form NAME.TYPE")]
    NoSuffix(String),
    /// A suffix systemd does not know.
    #[error("invalid unit type: \"{0}\"")]
    Kind(String),
    /// A character outside `[a-zA-Z0-9:_.\@-]`.
    #[error("invalid character '{0}' in unit name")]
    Character(char),
    /// `@foo.service`.
    #[error("unit name cannot start in \"@\"")]
    StartsWithAt,
    /// `foo@1.mount`.
    #[error("invalid unit type for template: \"{0}\"")]
    TemplateKind(&'static str),
    /// A name that a path would read as a folder.
    #[error("unit name \"{0}\" cannot start with \".\"")]
    Hidden(String),
}

/// A valid unit name. It is always safe as a file name and as a registry key. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName {
    name: Arc<str>,
    /// The end of the prefix: the first `@`, else the dot before the kind.
    prefix: usize,
    /// The position of the dot before the kind.
    dot: usize,
    kind: UnitKind,
}

impl UnitName {
    /// Reads a name unchanged; a missing suffix is an error.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let (prefix, dot, kind) = Self::parts(name)?;
        Ok(Self {
            name: name.into(),
            prefix,
            dot,
            kind,
        })
    }

    /// Checks that [`parse`](Self::parse) would read it, without making a copy.
    pub fn check(name: &str) -> Result<(), NameError> {
        Self::parts(name).map(drop)
    }

    /// Returns the end of the prefix, the position of the dot before the kind, and the kind.
    fn parts(name: &str) -> Result<(usize, usize, UnitKind), NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_MAX {
            return Err(NameError::TooLong(name.len()));
        }
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '\\' | '@' | '-');
        if let Some(c) = name.chars().find(|c| !allowed(*c)) {
            return Err(NameError::Character(c));
        }
        if name.starts_with('@') {
            return Err(NameError::StartsWithAt);
        }
        if name.starts_with('.') {
            return Err(NameError::Hidden(name.to_owned()));
        }
        let dot = match name.rfind('.') {
            Some(dot) if dot > 0 && dot + 1 < name.len() => dot,
            _ => return Err(NameError::NoSuffix(name.to_owned())),
        };
        let suffix = &name[dot + 1..];
        let kind =
            UnitKind::from_suffix(suffix).ok_or_else(|| NameError::Kind(suffix.to_owned()))?;
        let at = name[..dot].find('@');
        if at.is_some() && !kind.may_be_template() {
            return Err(NameError::TemplateKind(kind.as_str()));
        }
        Ok((at.unwrap_or(dot), dot, kind))
    }

    /// Reads a name as a person types it. Without a known suffix it is a service.
    pub fn parse_lenient(name: &str) -> Result<Self, NameError> {
        let known = name
            .rfind('.')
            .is_some_and(|dot| UnitKind::from_suffix(&name[dot + 1..]).is_some());
        if known || name.is_empty() {
            Self::parse(name)
        } else {
            Self::parse(&format!("{name}.service"))
        }
    }

    /// Returns the whole name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the unit's kind.
    pub fn kind(&self) -> UnitKind {
        self.kind
    }

    /// Returns the name without its suffix (`%N`).
    pub fn stem(&self) -> &str {
        &self.name[..self.dot]
    }

    /// Returns the part before `@`, else the name without its suffix (`%p`).
    pub fn prefix(&self) -> &str {
        &self.name[..self.prefix]
    }

    /// Returns the part between `@` and the suffix (`%i`). Empty for a template, `None` for a plain
    /// name.
    pub fn instance(&self) -> Option<&str> {
        (self.prefix < self.dot).then(|| &self.name[self.prefix + 1..self.dot])
    }

    /// Returns whether it is a template, `prefix@.kind`, which is stored and never started.
    pub fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// Returns the template that provides an instance's content.
    pub fn template(&self) -> Option<Self> {
        let instance = self.instance()?;
        if instance.is_empty() {
            return None;
        }
        Self::parse(&format!("{}@.{}", self.prefix(), self.kind.as_str())).ok()
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for UnitName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

impl Serialize for UnitName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for UnitName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = UnitName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a unit")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<UnitName, E> {
                UnitName::parse(name).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(name: &str) -> String {
        UnitName::parse_lenient(name)
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn plain_name_has_no_instance() {
        let name = UnitName::parse("web.front.service").expect("valid");
        assert_eq!(name.prefix(), "web.front");
        assert_eq!(name.stem(), "web.front");
        assert_eq!(name.instance(), None);
        assert_eq!(name.template(), None);
    }

    #[test]
    fn instance_names_its_template() {
        let name = UnitName::parse("web@blue@1.timer").expect("valid");
        assert_eq!(name.prefix(), "web");
        assert_eq!(name.stem(), "web@blue@1");
        assert_eq!(name.instance(), Some("blue@1"));
        let template = name.template().expect("an instance has one");
        assert_eq!(template.as_str(), "web@.timer");
        assert!(template.is_template());
        assert_eq!(template.template(), None);
    }

    #[test]
    fn missing_or_unknown_suffix_means_service() {
        for (typed, meant) in [
            ("hello", "hello.service"),
            ("a.b", "a.b.service"),
            ("x@1", "x@1.service"),
            ("x.timer", "x.timer"),
        ] {
            assert_eq!(UnitName::parse_lenient(typed).expect(typed).as_str(), meant);
        }
    }

    #[test]
    fn refusals_have_the_texts_of_fleet_1_0() {
        assert_eq!(error(""), "unit name cannot be empty");
        assert_eq!(
            error("bad name.service"),
            "invalid character ' ' in unit name"
        );
        assert_eq!(error("café.service"), "invalid character 'é' in unit name");
        assert_eq!(error("@x.service"), "unit name cannot start in \"@\"");
        assert_eq!(
            error("foo@1.mount"),
            "invalid unit type for template: \"mount\""
        );
        assert_eq!(
            UnitName::parse("x.blah").expect_err("unknown").to_string(),
            "invalid unit type: \"blah\""
        );
        assert_eq!(
            error(&"a".repeat(260)),
            "unit name is 268 bytes long (max 255)"
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_names_are_safe_path_components(text in "\\PC*") {
            if let Ok(name) = UnitName::parse_lenient(&text) {
                prop_assert!(!name.as_str().contains('/'));
                prop_assert!(!name.as_str().starts_with('.'));
                prop_assert_eq!(UnitName::parse(name.as_str()), Ok(name));
            }
        }
    }
}
