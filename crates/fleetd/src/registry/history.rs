//! A unit's older revisions. Ten of them are kept.

use std::collections::BTreeMap;

use fleet_core::directory::Fingerprint;
use fleet_core::keys;
use fleet_core::record::{self, Past, SeenRecord, UnitRecord};
use fleet_core::rollout::surplus;
use fleet_core::unit::UnitName;

use crate::store::{Snapshot, Write};

/// A unit's older revisions by number, or the reason why one cannot be read.
pub(crate) type History = BTreeMap<u64, Result<Past, String>>;

/// Returns the older revisions of a unit in a snapshot.
pub(crate) fn of(snapshot: &Snapshot, name: &UnitName) -> History {
    let prefix = keys::history_of(name);
    let below = snapshot.entries.range(prefix.clone()..);
    below
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter_map(|(key, entry)| {
            let (_, number) = keys::past_of(key)?;
            let past = record::decode(&entry.value);
            Some((number, past.map_err(|error| error.to_string())))
        })
        .collect()
}

/// Returns the revisions that can be read.
pub(crate) fn readable(history: &History) -> BTreeMap<u64, Past> {
    let past = history.iter();
    past.filter_map(|(number, past)| Some((*number, past.clone().ok()?)))
        .collect()
}

/// Returns the contents that a unit ever had, as far as they are remembered.
pub(crate) fn seen(snapshot: &Snapshot, name: &UnitName) -> SeenRecord {
    let entry = snapshot.entries.get(&keys::seen(name));
    // A damaged value is written again with what is known now.
    let seen = entry.and_then(|entry| record::decode(&entry.value).ok());
    seen.unwrap_or_default()
}

/// Returns the write that remembers the contents of a unit, if some of them are new. `destroyed` is
/// the time when the unit is destroyed.
pub(crate) fn remember(
    name: &UnitName,
    seen: &SeenRecord,
    history: &History,
    record: Option<&UnitRecord>,
    destroyed: Option<u64>,
) -> Option<Write> {
    let past = history.values().flatten().map(|past| &past.revision);
    let candidate = record.and_then(|record| record.candidate.as_ref());
    let present = record.map(|record| &record.stable);
    let revisions = past
        .chain(present)
        .chain(candidate.map(|candidate| &candidate.revision));
    let contents = revisions.map(|revision| Fingerprint::of(&revision.content));
    let next = SeenRecord {
        destroyed,
        ..seen.with(contents)
    };
    (next != *seen).then(|| Write::Put {
        key: keys::seen(name),
        value: record::encode(&next),
        lease: None,
    })
}

/// Returns the writes that keep the retired revisions, and remove the oldest ones beyond what is
/// kept ([`surplus`]). They belong into the commit that retires the revisions. The unit's own key
/// guards them, because it changes with its history. `unit` is the record that had the revisions;
/// fields that this version does not know are taken from it.
pub(crate) fn retire(
    name: &UnitName,
    retired: &[Past],
    history: &History,
    unit: Option<&[u8]>,
) -> Vec<Write> {
    let kept = history.iter().map(|(number, past)| {
        let stable = past.as_ref().is_ok_and(|past| past.dropped.is_none());
        (*number, stable)
    });
    let surplus = surplus(&kept.collect(), retired);
    let goes = |number: &u64| surplus.contains(number);
    let old = history.keys().filter(|number| goes(number));
    let fresh = retired.iter().filter(|it| !goes(&it.revision.number));
    old.map(|number| Write::Delete(keys::history(name, *number)))
        .chain(fresh.map(|past| Write::Put {
            key: keys::history(name, past.revision.number),
            value: record::encode_over::<UnitRecord, _>(past, unit),
            lease: None,
        }))
        .collect()
}
