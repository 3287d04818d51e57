//! Which units belong on which machines, and why not.
//!
//! Most machines share few values of the metadata that units select by, so each of these is placed
//! once.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::machine::Metadata;
use fleet_core::place::{Placeable, Verdict, place};
use fleet_core::unit::UnitName;

use super::unit::Unit;

/// The units that belong on a machine, by the metadata that units ask for; what no unit asks for is
/// left out.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_labels: BTreeMap<Metadata, Arc<BTreeMap<UnitName, Verdict>>>,
}

impl Places {
    pub(super) fn of(
        &mut self,
        units: &BTreeMap<UnitName, Unit>,
        mut labels: Metadata,
    ) -> Arc<BTreeMap<UnitName, Verdict>> {
        labels.retain(|key, _| {
            let mut wanted = units.values().map(Unit::wanted);
            wanted.any(|options| options.machine_metadata.contains_key(key))
        });
        if let Some(known) = self.by_labels.get(&labels) {
            return known.clone();
        }
        let placeable = units.iter().map(|(name, unit)| Placeable {
            name,
            created: unit.created,
            target: unit.record.target,
            options: unit.wanted(),
        });
        let verdicts = Arc::new(place(placeable, &labels));
        self.by_labels.insert(labels, verdicts.clone());
        verdicts
    }
}
