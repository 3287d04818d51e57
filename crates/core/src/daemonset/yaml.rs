//! YAML as a tree in which every node has its place.
//!
//! A manifest is read with its places and with the difference between `80` and `"80"`, which
//! Kubernetes keeps too. The parser is the one below serde-saphyr. Its events give all of that for
//! every node, and serde's data model does not. Sizes are bounded before anything else looks at the
//! tree.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Tag};

use super::remark::Place;

/// The largest manifest, in bytes: that of a unit file.
pub const MANIFEST_MAX: usize = crate::record::CONTENT_MAX;

/// How many nodes a file may have once its aliases are expanded. The largest real manifest has a
/// few thousand.
const NODES_MAX: usize = 50_000;

/// How deep nodes may lie. A DaemonSet with node affinity needs 13.
const DEPTH_MAX: usize = 64;

/// A node and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
    /// How many nodes it consists of.
    size: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    /// Plain scalars may be numbers and booleans; quoted ones are text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) value: Node,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) at: Place,
    pub(super) text: String,
}

type Read<T> = Result<T, Unreadable>;

fn unreadable<T>(at: Place, text: impl Into<String>) -> Read<T> {
    Err(Unreadable {
        at,
        text: text.into(),
    })
}

/// Reads the documents of a file; empty ones are left out.
pub(super) fn documents(bytes: &[u8]) -> Read<Vec<Node>> {
    if bytes.len() > MANIFEST_MAX {
        let text = format!(
            "the file is {} bytes long, and a manifest may have at most {MANIFEST_MAX}",
            bytes.len()
        );
        return unreadable(place_of(bytes, MANIFEST_MAX), text);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = place_of(bytes, error.valid_up_to());
            return unreadable(at, "this is no UTF-8, so it is no YAML");
        }
    };
    let mut options = Options::default();
    options.block_nesting_limit = DEPTH_MAX;
    options.flow_nesting_limit = DEPTH_MAX;
    let mut tree = Tree {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: BTreeMap::new(),
        nodes: 0,
    };
    tree.documents()
}

fn place_of(bytes: &[u8], offset: usize) -> Place {
    let before = &bytes[..offset.min(bytes.len())];
    let newline = before.iter().rposition(|byte| *byte == b'\n');
    Place {
        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: before.len() - newline.map_or(0, |at| at + 1) + 1,
    }
}

fn place(mark: &Marker) -> Place {
    Place {
        line: mark.line(),
        column: mark.col() + 1,
    }
}

struct Tree<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'t> Tree<'t> {
    fn next(&mut self) -> Read<(Event<'t>, Place)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, place(&span.start))),
            Some(Err(error)) => {
                let at = place(error.marker());
                unreadable(at, format!("this is no YAML: {}", error.info()))
            }
            None => Ok((Event::StreamEnd, Place { line: 1, column: 1 })),
        }
    }

    fn documents(&mut self) -> Read<Vec<Node>> {
        let mut documents = Vec::new();
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(documents),
                (Event::DocumentStart(..), _) => {
                    // Anchors end with their document.
                    self.anchors.clear();
                    let first = self.next()?;
                    let node = self.node(first)?;
                    if !matches!(node.value, Value::Null) {
                        documents.push(node);
                    }
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, (event, at): (Event<'t>, Place)) -> Read<Node> {
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style, tag.as_deref(), at)?;
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text if text.contains('\0') => {
                        return unreadable(at, "a NUL byte cannot be part of a command or a path");
                    }
                    _ => Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                };
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.untagged(tag.as_deref(), at)?;
                (Value::List(self.list()?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.untagged(tag.as_deref(), at)?;
                (Value::Map(self.map()?), anchor)
            }
            Event::Alias(id) => return self.alias(id, at),
            _ => return unreadable(at, "this is no YAML: a value is missing"),
        };
        let inner = match &value {
            Value::List(items) => items.iter().map(|item| item.size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.size + 1).sum(),
            Value::Null | Value::Scalar { .. } => 0_usize,
        };
        self.count(1, at)?;
        let node = Node {
            at,
            value,
            size: inner + 1,
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, at: Place) -> Read<Node> {
        let Some(node) = self.anchors.get(&id) else {
            return unreadable(at, "this alias names a value that contains it");
        };
        let size = node.size;
        self.count(size, at)?;
        // Remarks name the place where the value is used.
        let mut node = self.anchors[&id].clone();
        node.at = at;
        Ok(node)
    }

    fn count(&mut self, nodes: usize, at: Place) -> Read<()> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let text = format!(
                "the file has more than {NODES_MAX} values, counting each alias with all that it stands for"
            );
            return unreadable(at, text);
        }
        Ok(())
    }

    fn list(&mut self) -> Read<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                item => items.push(self.node(item)?),
            }
        }
    }

    fn map(&mut self) -> Read<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let (event, at) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return unreadable(at, "a key must be plain text"),
            };
            if key == "<<" {
                return unreadable(at, "merge keys (<<) are not read; write the fields out");
            }
            if let Some(first) = lines.insert(key.clone(), at.line) {
                let text = format!("{key:?} is given twice, first in line {first}");
                return unreadable(at, text);
            }
            self.count(1, at)?;
            let value = self.next()?;
            let value = self.node(value)?;
            entries.push(Entry { key, at, value });
        }
    }

    fn is_plain(&self, style: ScalarStyle, tag: Option<&Tag>, at: Place) -> Read<bool> {
        match tag {
            None => Ok(style == ScalarStyle::Plain),
            Some(tag) if tag.is_yaml_core_schema_tag("str") => Ok(false),
            Some(_) => unreadable(at, "tags are not read; remove it, or write !!str"),
        }
    }

    fn untagged(&self, tag: Option<&Tag>, at: Place) -> Read<()> {
        match tag {
            None => Ok(()),
            Some(_) => unreadable(at, "tags are not read; remove it"),
        }
    }
}

/// Whether a plain scalar is a number or a boolean to Kubernetes, and so no text.
pub(super) fn is_typed(text: &str) -> bool {
    boolean(text).is_some() || is_number(text)
}

/// Reads a boolean as YAML 1.1 has it, which Kubernetes reads.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let radix = |prefix: &str, radix| {
        let digits = digits.strip_prefix(prefix);
        digits.is_some_and(|it| !it.is_empty() && it.chars().all(|c| c.is_digit(radix)))
    };
    let begins = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    begins && digits.contains(|c: char| c.is_ascii_digit()) && digits.parse::<f64>().is_ok()
        || radix("0x", 16)
        || radix("0o", 8)
        || radix("0b", 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = documents(text.as_bytes()).expect_err("it is refused");
        format!("{}:{}: {}", error.at.line, error.at.column, error.text)
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place() {
        let refused = [
            "a: [1, 2",
            "a:\n\t- b\n",
            "a: b: c\n",
            "a: 1\nb: 2\na: 3\n",
            "a: *nothing\n",
            "a: &x [*x]\n",
            "a: &x {b: c}\nd:\n  <<: *x\n",
            "a: !!binary aGk=\n",
            "? [a]\n: b\n",
            "a: \"x\\0y\"\n",
            &"[".repeat(100),
            &("a: b\nc: ".to_owned() + &"x".repeat(MANIFEST_MAX)),
        ]
        .map(error);
        insta::assert_snapshot!(refused.join("\n"));
        let bytes = documents(b"a: b\nc: \xff\n").expect_err("no text");
        assert_eq!(bytes.at, Place { line: 2, column: 4 });
    }

    #[test]
    fn aliases_that_multiply_are_refused_and_others_expanded() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let alias = format!("*a{}", i - 1);
            let aliases = [alias.as_str(); 9].join(", ");
            bomb += &format!("a{i}: &a{i} [{aliases}]\n");
        }
        let text = "5:35: the file has more than 50000 values, counting each alias with all that it stands for";
        assert_eq!(error(&bomb), text);
        let tree = documents(b"a: &x [1, 2]\nb: *x\n").expect("a tree");
        let Value::Map(entries) = &tree[0].value else {
            panic!("no map");
        };
        assert!(matches!(&entries[1].value.value, Value::List(items) if items.len() == 2));
        assert_eq!(entries[1].value.at, Place { line: 2, column: 4 });
    }

    #[test]
    fn numbers_and_booleans_are_no_text() {
        for typed in ["80", "-1", "1.5", "1e3", ".5", "0x1f", "true", "yes", "Off"] {
            assert!(is_typed(typed), "{typed}");
        }
        for text in [
            "", "-", "80a", "nan", "inf", "100m", "1.2.3", "e5", "y", "0x",
        ] {
            assert!(!is_typed(text), "{text}");
        }
    }
}
