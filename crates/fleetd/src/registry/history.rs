//! A unit's older revisions, ten of which are kept.

use std::collections::BTreeMap;

use fleet_core::directory::Fingerprint;
use fleet_core::keys;
use fleet_core::record::{self, Past, SeenRecord, UnitRecord};
use fleet_core::rollout::surplus;
use fleet_core::unit::UnitName;

use crate::store::{Snapshot, Write};

/// A unit's older revisions by number, or why one cannot be read.
pub(crate) type History = BTreeMap<u64, Result<Past, String>>;

/// The older revisions of a unit in what was listed.
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

/// Those that can be read.
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

/// Returns the write that remembers the contents of a unit, if some of them are new. `destroyed`: when it goes.
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

/// The writes that keep the retired revisions, and drop the oldest ones beyond what is kept ([`surplus`]). They go into
/// the commit that retires them, guarded by the unit's own key, which changes whenever its history does. `unit`: the record
/// that they were in, for what this version does not know of them.
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
