//! What the conversion says about a manifest, field by field.

use std::fmt;

/// A place in a manifest, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// How serious a remark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The field has no effect here, or another one than in Kubernetes. The unit is complete
    /// without it.
    Note,
    /// The unit would not do what the manifest asks for: nothing is converted.
    Refused,
}

/// A remark about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The place of the field.
    pub at: Place,
    /// Its path, such as `spec.template.spec.containers[0].image`; empty for the whole file.
    pub path: String,
    /// Whether it stops the conversion.
    pub kind: Kind,
    /// The reason, and what to do instead.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.at;
        let kind = match self.kind {
            Kind::Note => "note",
            Kind::Refused => "refused",
        };
        write!(f, "{line}:{column}: {kind}: ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// The remarks so far.
#[derive(Debug, Default)]
pub(super) struct Remarks(pub(super) Vec<Remark>);

impl Remarks {
    pub(super) fn note(&mut self, at: Place, path: &str, text: impl Into<String>) {
        self.push(at, path, Kind::Note, text.into());
    }

    pub(super) fn refuse(&mut self, at: Place, path: &str, text: impl Into<String>) {
        self.push(at, path, Kind::Refused, text.into());
    }

    fn push(&mut self, at: Place, path: &str, kind: Kind, text: String) {
        let remark = Remark {
            at,
            path: path.to_owned(),
            kind,
            text,
        };
        // A list of containers may reach the same field twice.
        if !self.0.contains(&remark) {
            self.0.push(remark);
        }
    }

    pub(super) fn refused(&self) -> bool {
        self.0.iter().any(|remark| remark.kind == Kind::Refused)
    }
}
