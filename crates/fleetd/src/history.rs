//! A unit's older revisions, ten of which are kept.

use fleet_core::keys;
use fleet_core::record::{self, HISTORY_KEPT, Past};
use fleet_core::unit::UnitName;

use crate::store::Write;

/// Keeps the retired revision, and drops the oldest ones beyond what is kept. `numbers`: the history's keys as they
/// are, in order. The commit must be guarded by the unit's own key, which changes whenever its history does.
pub(crate) fn retire(name: &UnitName, retired: &Past, numbers: &[String]) -> Vec<Write> {
    let key = keys::history(name, retired.revision.number);
    let kept: Vec<&String> = numbers.iter().filter(|number| **number != key).collect();
    let surplus = (kept.len() + 1).saturating_sub(HISTORY_KEPT);
    let dropped = kept[..surplus].iter().map(|key| (*key).clone());
    let mut writes: Vec<Write> = dropped.map(Write::Delete).collect();
    writes.push(Write::Put {
        key,
        value: record::encode(retired),
        lease: None,
    });
    writes
}
