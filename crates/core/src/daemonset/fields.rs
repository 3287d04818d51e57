//! The fields of a manifest: which were read, and what becomes of the others.

use super::remark::{Place, Remarks};
use super::yaml::{Entry, Node, Value, boolean, is_typed};

/// A map of a manifest. Every key is taken, or judged by [`Fields::finish`].
pub(super) struct Fields<'n> {
    pub(super) path: String,
    pub(super) at: Place,
    entries: Vec<&'n Entry>,
    asked: Vec<&'static str>,
}

/// What becomes of a known field that no code takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has no effect here.
    Noted,
    /// The unit would not do what it asks for.
    Refused,
}

/// A known field, what becomes of it, and why.
pub(super) type Rule = (&'static str, Fate, &'static str);

/// A value of a manifest and how it is reached.
#[derive(Clone)]
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
    /// The place of its key.
    pub(super) at: Place,
}

impl<'n> Fields<'n> {
    /// Takes a field; `None` if it is absent or null, which mean the same to Kubernetes.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field<'n>> {
        self.asked.push(key);
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(index);
        let field = Field {
            node: &entry.value,
            path: self.below(key),
            at: entry.at,
        };
        (!field.is_null()).then_some(field)
    }

    /// Takes text.
    pub(super) fn text(&mut self, key: &'static str, remarks: &mut Remarks) -> Option<String> {
        self.take(key)?.text(remarks)
    }

    /// Takes a boolean; false if it is absent.
    pub(super) fn flag(&mut self, key: &'static str, remarks: &mut Remarks) -> bool {
        let field = self.take(key);
        field
            .and_then(|field| field.boolean(remarks))
            .unwrap_or_default()
    }

    /// Takes a number.
    pub(super) fn number(&mut self, key: &'static str, remarks: &mut Remarks) -> Option<u64> {
        self.take(key)?.number(remarks)
    }

    /// Takes a map.
    pub(super) fn map(&mut self, key: &'static str, remarks: &mut Remarks) -> Option<Fields<'n>> {
        self.take(key)?.fields(remarks)
    }

    /// Takes a list; empty if it is absent.
    pub(super) fn list(&mut self, key: &'static str, remarks: &mut Remarks) -> Vec<Field<'n>> {
        let field = self.take(key);
        field.map(|field| field.items(remarks)).unwrap_or_default()
    }

    /// The path of a field below it.
    pub(super) fn below(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Drops a field that was judged already.
    pub(super) fn drop(&mut self, key: &str) {
        self.entries.retain(|entry| entry.key != key);
    }

    /// Returns the entries that were not taken.
    pub(super) fn left(&self) -> &[&'n Entry] {
        &self.entries
    }

    /// Judges the fields that were not taken: noted, refused, or unknown.
    pub(super) fn finish(self, rules: &[Rule], remarks: &mut Remarks) {
        for entry in &self.entries {
            let path = self.below(&entry.key);
            match rules.iter().find(|(key, ..)| *key == entry.key) {
                _ if matches!(entry.value.value, Value::Null) => {}
                Some((_, Fate::Noted, text)) => remarks.note(entry.at, &path, *text),
                // It says that nothing is asked for.
                Some(_) if is_empty(&entry.value) => {}
                Some((_, Fate::Refused, text)) => remarks.refuse(entry.at, &path, *text),
                None => {
                    let known = rules.iter().map(|(key, ..)| *key);
                    let meant = nearest(&entry.key, self.asked.iter().copied().chain(known));
                    let hint = meant.map(|meant| format!("; did you mean {meant}?"));
                    let text = format!("there is no such field{}", hint.unwrap_or_default());
                    remarks.refuse(entry.at, &path, text);
                }
            }
        }
    }
}

/// Whether a value says that nothing is asked for.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar { text, plain } => text.is_empty() || *plain && boolean(text) == Some(false),
        Value::List(items) => items.is_empty(),
        Value::Map(_) => false,
    }
}

/// Returns the known word that a misspelt one may stand for.
pub(super) fn nearest(
    word: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    if word.len() > 64 {
        return None;
    }
    let distance = |it: &str| strsim::osa_distance(&word.to_lowercase(), &it.to_lowercase());
    let near = known.into_iter().map(|it| (distance(it), it)).min()?;
    (near.0 <= 1 + near.1.len() / 5).then_some(near.1)
}

impl<'n> Field<'n> {
    /// A document as a whole.
    pub(super) fn document(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
            at: node.at,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    pub(super) fn note(&self, remarks: &mut Remarks, text: impl Into<String>) {
        remarks.note(self.at, &self.path, text);
    }

    pub(super) fn refuse(&self, remarks: &mut Remarks, text: impl Into<String>) {
        remarks.refuse(self.at, &self.path, text);
    }

    /// Reads text. A plain number or boolean is refused, as Kubernetes does.
    pub(super) fn text(&self, remarks: &mut Remarks) -> Option<String> {
        match &self.node.value {
            Value::Scalar { text, plain } if *plain && is_typed(text) => {
                self.refuse(remarks, format!("{text} is no text; write \"{text}\""));
                None
            }
            Value::Scalar { text, .. } => Some(text.clone()),
            _ => self.wrong("text", remarks),
        }
    }

    /// Reads a number or a text, such as a percentage or an amount of memory.
    pub(super) fn amount(&self, remarks: &mut Remarks) -> Option<String> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text.clone()),
            _ => self.wrong("a number", remarks),
        }
    }

    pub(super) fn boolean(&self, remarks: &mut Remarks) -> Option<bool> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if boolean(text).is_some() => boolean(text),
            _ => self.wrong("true or false", remarks),
        }
    }

    /// Reads a whole number, from 0.
    pub(super) fn number(&self, remarks: &mut Remarks) -> Option<u64> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if text.bytes().all(|c| c.is_ascii_digit()) => {
                match text.parse::<u64>() {
                    Ok(number) if number <= u64::from(u32::MAX) => Some(number),
                    _ => self.wrong("a number up to 4294967295", remarks),
                }
            }
            _ => self.wrong("a whole number", remarks),
        }
    }

    pub(super) fn fields(&self, remarks: &mut Remarks) -> Option<Fields<'n>> {
        match &self.node.value {
            Value::Map(entries) => Some(Fields {
                path: self.path.clone(),
                at: self.at,
                entries: entries.iter().collect(),
                asked: Vec::new(),
            }),
            _ => self.wrong("a map of fields", remarks),
        }
    }

    /// Reads the items of a list.
    pub(super) fn items(&self, remarks: &mut Remarks) -> Vec<Field<'n>> {
        match &self.node.value {
            Value::List(items) => {
                let items = items.iter().enumerate();
                let item = |(index, node): (usize, &'n Node)| Field {
                    node,
                    path: format!("{}[{index}]", self.path),
                    at: node.at,
                };
                items.map(item).collect()
            }
            _ => self.wrong::<Vec<_>>("a list", remarks).unwrap_or_default(),
        }
    }

    /// Reads a list of texts.
    pub(super) fn texts(&self, remarks: &mut Remarks) -> Vec<String> {
        let items = self.items(remarks);
        items.iter().filter_map(|item| item.text(remarks)).collect()
    }

    /// Reads a map of texts, such as labels.
    pub(super) fn pairs(&self, remarks: &mut Remarks) -> Vec<(String, Field<'n>, String)> {
        let Some(fields) = self.fields(remarks) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for entry in fields.left() {
            let field = Field {
                node: &entry.value,
                path: format!("{}.{}", self.path, entry.key),
                at: entry.at,
            };
            if let Some(text) = field.text(remarks) {
                pairs.push((entry.key.clone(), field, text));
            }
        }
        pairs
    }

    fn wrong<T>(&self, wanted: &str, remarks: &mut Remarks) -> Option<T> {
        let found = match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, .. } => {
                let short: String = text.chars().take(40).collect();
                format!("{short:?}")
            }
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        };
        self.refuse(remarks, format!("{wanted} belongs here, not {found}"));
        None
    }
}
