//! A unit, a machine, and what a watch tells of them, for the tests of the leader's index.

use std::collections::BTreeSet;

use fleet_core::machine::MachineId;
use fleet_core::record::{Revision, UnitRecord};
use fleet_core::unit::{TargetState, UnitName};

use super::index::Index;
use crate::store::{Batch, Change, Entry, LeaseId};

pub(super) fn name() -> UnitName {
    UnitName::parse("web.service").expect("valid")
}

pub(super) fn machine() -> MachineId {
    MachineId::parse(&"a".repeat(32)).expect("valid")
}

/// A unit that belongs everywhere.
pub(super) fn everywhere() -> UnitRecord {
    UnitRecord {
        target: TargetState::Launched,
        stable: Revision {
            number: 1,
            at: 0,
            content: "[X-Fleet]\nGlobal=true\n".into(),
            restarts: 0,
        },
        candidate: None,
        last: None,
        owners: BTreeSet::new(),
    }
}

/// The watch tells of a commit of one key, which is gone if there is no value.
pub(super) fn seen(index: &mut Index, revision: u64, key: &str, value: Option<Vec<u8>>) {
    let change = match value {
        Some(value) => Change::Put(
            key.to_owned(),
            Entry {
                value: value.into(),
                created: 1,
                modified: revision,
                lease: Some(LeaseId(7)),
            },
        ),
        None => Change::Delete(key.to_owned()),
    };
    let changes = vec![change];
    index.apply(Batch { revision, changes });
}
