//! Keeps the unknown fields of a value when the value is written again.
//!
//! Machines are upgraded one by one. Meanwhile an older fleetd rewrites the records of a newer one,
//! and must not drop what it cannot read. A newer version that cannot tolerate older writers raises
//! the format.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::encode;

/// Returns `value` encoded, with all fields of `before` (a `B`) that this version does not know.
/// The fields of one revision of a unit stay with that revision, wherever it moves.
pub fn encode_over<B, V>(value: &V, before: Option<&[u8]>) -> Vec<u8>
where
    B: Serialize + DeserializeOwned,
    V: Serialize,
{
    let unknown = before.and_then(Unknown::of::<B>);
    let with_unknown = unknown.and_then(|unknown| {
        let mut value = serde_json::to_value(value).ok()?;
        unknown.put_into(&mut value);
        Some(encode(&value))
    });
    with_unknown.unwrap_or_else(|| encode(value))
}

#[derive(Default)]
struct Unknown {
    /// The unknown fields of revisions, by the revision's number.
    revisions: BTreeMap<u64, Map<String, Value>>,
    /// All other unknown fields, with the path to them.
    others: Vec<(Vec<String>, Map<String, Value>)>,
}

impl Unknown {
    /// Returns the unknown fields. `None` if there are none, or the value cannot be read.
    fn of<B: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Self> {
        let known: B = serde_json::from_slice(bytes).ok()?;
        let known = serde_json::to_value(&known).ok()?;
        let all: Value = serde_json::from_slice(bytes).ok()?;
        let mut unknown = Self::default();
        unknown.collect(&mut Vec::new(), &all, &known);
        let is_empty = unknown.revisions.is_empty() && unknown.others.is_empty();
        (!is_empty).then_some(unknown)
    }

    fn collect(&mut self, path: &mut Vec<String>, all: &Value, known: &Value) {
        let (Some(all), Some(known)) = (all.as_object(), known.as_object()) else {
            return;
        };
        let mut here = Map::new();
        for (name, value) in all {
            match known.get(name) {
                Some(known) => {
                    path.push(name.clone());
                    self.collect(path, value, known);
                    path.pop();
                }
                None if path.is_empty() && name == "format" => {}
                None => {
                    here.insert(name.clone(), value.clone());
                }
            }
        }
        if here.is_empty() {
            return;
        }
        match number(all) {
            Some(number) => self.revisions.entry(number).or_default().extend(here),
            None => self.others.push((path.clone(), here)),
        }
    }

    fn put_into(&self, value: &mut Value) {
        // A value that is one revision takes none of the other fields.
        let is_revision = value.as_object().is_some_and(|it| number(it).is_some());
        for (path, fields) in self.others.iter().filter(|_| !is_revision) {
            let mut place = Some(&mut *value);
            for name in path {
                place = place.and_then(|place| place.get_mut(name));
            }
            if let Some(Value::Object(place)) = place {
                add(place, fields);
            }
        }
        self.put_into_revisions(value);
    }

    fn put_into_revisions(&self, value: &mut Value) {
        let Value::Object(object) = value else { return };
        if let Some(fields) = number(object).and_then(|number| self.revisions.get(&number)) {
            add(object, fields);
        }
        for (_, inner) in object.iter_mut() {
            self.put_into_revisions(inner);
        }
    }
}

/// Returns the revision's number if the object is a revision.
fn number(object: &Map<String, Value>) -> Option<u64> {
    object.get("content")?;
    object.get("number")?.as_u64()
}

fn add(object: &mut Map<String, Value>, fields: &Map<String, Value>) {
    for (name, value) in fields {
        object.entry(name).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{MetadataRecord, Past, UnitRecord, decode};

    const NEWER: &[u8] = br#"{"format":1,"target":"launched","stable":{"number":1,"at":1,"content":"a","files":["x"]},
        "candidate":{"number":2,"at":2,"content":"b","phase":"rolling","since":3,"files":["y"]},"owners":["api"],"team":{"a":1}}"#;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[test]
    fn unknown_fields_follow_their_revision() {
        let mut record: UnitRecord = decode(NEWER).expect("reads");
        let candidate = record.candidate.take().expect("a candidate");
        let stable = std::mem::replace(&mut record.stable, candidate.revision);
        let written = text(&encode_over::<UnitRecord, _>(&record, Some(NEWER)));
        insta::assert_snapshot!(written, @r#"{"format":1,"owners":["api"],"stable":{"at":2,"content":"b","files":["y"],"number":2},"target":"launched","team":{"a":1}}"#);
        let past = Past {
            revision: stable,
            dropped: None,
        };
        let written = text(&encode_over::<UnitRecord, _>(&past, Some(NEWER)));
        insta::assert_snapshot!(written, @r#"{"format":1,"at":1,"content":"a","files":["x"],"number":1}"#);
    }

    #[test]
    fn record_without_unknown_fields_is_written_unchanged() {
        let known = br#"{"format":1,"set":{"a":"b"},"scheduling":"normal"}"#;
        let record: MetadataRecord = decode(known).expect("reads");
        let written = encode_over::<MetadataRecord, _>(&record, None);
        assert_eq!(written, encode(&record));
        let again: MetadataRecord =
            decode(&encode_over::<MetadataRecord, _>(&record, Some(known))).expect("reads");
        assert_eq!(again, record);
        let damaged = encode_over::<MetadataRecord, _>(&record, Some(b"{"));
        assert_eq!(damaged, encode(&record));
    }
}
