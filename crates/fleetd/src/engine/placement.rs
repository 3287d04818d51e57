//! How a unit stands on the machines where it belongs.
//!
//! Most machines share few values of the metadata that units select by, so each of these is placed once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_core::keys;
use fleet_core::machine::{MachineId, Metadata};
use fleet_core::place::{Placeable, Verdict, place, restrict};
use fleet_core::record::Scheduling;
use fleet_core::rollout::{OnMachine, Situation};
use fleet_core::unit::UnitName;

use super::index::Index;
use super::machine::Machine;
use super::unit::Unit;

/// The units that belong on a machine, by the metadata that units ask for; what no unit asks for is left out.
#[derive(Debug, Default)]
pub(super) struct Placement {
    by_labels: BTreeMap<Metadata, Arc<BTreeSet<UnitName>>>,
}

impl Placement {
    fn of(
        &mut self,
        units: &BTreeMap<UnitName, Unit>,
        mut labels: Metadata,
    ) -> Arc<BTreeSet<UnitName>> {
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
        let verdicts = place(placeable, &labels);
        let running = verdicts
            .into_iter()
            .filter(|(_, verdict)| *verdict == Verdict::Run);
        let belongs: Arc<BTreeSet<UnitName>> = Arc::new(running.map(|(name, _)| name).collect());
        self.by_labels.insert(labels, belongs.clone());
        belongs
    }
}

impl Index {
    /// How the unit stands at that time, by the leader's clock; none if there is no such unit.
    pub(super) fn situation(
        &mut self,
        name: &UnitName,
        now: u64,
    ) -> Option<Situation<'_>> {
        for machine in self.machines.values_mut() {
            if machine.belongs.is_none()
                && let Some(labels) = machine.labels()
            {
                machine.belongs = Some(self.placement.of(&self.units, labels));
            }
        }
        let unit = self.units.get_mut(name)?;
        let since = *unit.since.get_or_insert(now);
        let unit = self.units.get(name)?;
        let progress = self.progress.get(name);
        Some(Situation {
            record: &unit.record,
            created: unit.created,
            policy: unit.newest().policy,
            progress: progress.and_then(|progress| progress.value.as_ref()),
            machines: self.standing(name),
            now,
            since,
        })
    }

    fn standing(&self, name: &UnitName) -> Vec<OnMachine<'_>> {
        let machines = self.machines.iter();
        machines
            .filter_map(|(id, machine)| self.on_machine(name, id, machine))
            .collect()
    }

    /// None where the unit does not belong.
    fn on_machine<'a>(
        &'a self,
        name: &UnitName,
        id: &'a MachineId,
        machine: &'a Machine,
    ) -> Option<OnMachine<'a>> {
        let live = machine.live()?;
        let report = live.report.and_then(|report| report.units.get(name));
        let belongs = match &machine.belongs {
            Some(units) => units.contains(name),
            // Nobody knows what it is selected by; what it has goes on.
            None => report.is_some(),
        };
        let grant = machine.grants.get(name);
        let newer_grant = grant.filter(|grant| grant.is_newer);
        let unreadable = match live.unreadable {
            Some(kind) => Some(format!("{kind}{id}")),
            None => newer_grant.map(|_| keys::grant(id, name)),
        };
        // One of which nobody knows how it stands may have the unit.
        let has = report.is_some() || unreadable.is_some();
        let verdict = restrict(Verdict::Run, live.scheduling, has);
        (belongs && verdict == Verdict::Run).then(|| OnMachine {
            id,
            session: live.session,
            cordoned: live.scheduling == Scheduling::Cordoned,
            grant: grant.and_then(|grant| Some((grant.value.as_ref()?, grant.at))),
            report,
            problem: live
                .report
                .and_then(|report| report.problems.get(name.as_str()))
                .map(String::as_str),
            unreadable: unreadable.map(|key| self.problem(&key)),
        })
    }
}
