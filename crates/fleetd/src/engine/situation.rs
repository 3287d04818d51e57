//! How a unit stands on the machines where it belongs.

use fleet_core::keys;
use fleet_core::machine::{MachineId, Scheduling};
use fleet_core::place::{Verdict, restrict};
use fleet_core::rollout::{OnMachine, Presence, Situation, Unknown};
use fleet_core::unit::UnitName;

use super::index::Index;
use super::machine::{Machine, Report};

impl Index {
    /// How the unit stands at that time, by the leader's clock; none if there is no such unit.
    pub(super) fn situation(&mut self, name: &UnitName, now: u64) -> Option<Situation<'_>> {
        for machine in self.machines.values_mut() {
            if machine.belongs.is_none()
                && let Some(labels) = machine.labels()
            {
                machine.belongs = Some(self.places.of(&self.units, labels));
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
            min_ready: unit.min_ready(),
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

    /// None where the unit neither belongs nor has to be given up.
    fn on_machine<'a>(
        &'a self,
        name: &UnitName,
        id: &'a MachineId,
        machine: &'a Machine,
    ) -> Option<OnMachine<'a>> {
        let presence = machine.presence(self.awaited_until)?;
        let said = machine.report.as_ref().and_then(Report::value);
        let said = said.filter(|_| matches!(presence, Presence::Live(_)));
        let report = said.and_then(|said| said.units.get(name));
        let grant = machine.grants.get(name);
        let unknown = self.unknown(name, id, machine);
        // One that is not here, or whose state is unknown, may have the unit.
        let is_live = matches!(presence, Presence::Live(_));
        let has = report.is_some() || unknown.is_some() || !is_live && grant.is_some();
        let placed = machine.belongs.as_ref().map(|units| units.get(name));
        let leaves = match placed {
            Some(Some(Verdict::Run)) => None,
            Some(Some(Verdict::Not(reason))) => Some(reason),
            Some(None) => return None,
            // Nobody knows what it is selected by; what it has goes on.
            None if has => None,
            None => return None,
        };
        let may_leave = || {
            let lets = grant.and_then(|grant| grant.value.as_ref());
            let lets_it_go = lets.is_some_and(|grant| grant.leaves);
            lets_it_go || report.is_some_and(|report| report.leaving)
        };
        let unit = self.units.get(name)?;
        let scheduling = match machine.is_scheduling_known() {
            true => unit.wanted().scheduling_on(machine.scheduling()),
            false => machine.scheduling(),
        };
        let verdict = restrict(Verdict::Run, scheduling, has);
        let is_there = match leaves {
            Some(reason) => reason.narrows() && may_leave(),
            None => verdict == Verdict::Run,
        };
        is_there.then(|| OnMachine {
            id,
            presence,
            cordoned: scheduling == Scheduling::Cordoned,
            grant: grant.and_then(|grant| Some((grant.value.as_ref()?, grant.at))),
            report,
            problem: said
                .and_then(|said| said.problems.get(name.as_str()))
                .map(String::as_str),
            leaves,
            unknown,
        })
    }

    /// Why nobody knows how the unit stands on a machine that is here; none if that is known.
    fn unknown<'a>(
        &'a self,
        name: &UnitName,
        id: &MachineId,
        machine: &'a Machine,
    ) -> Option<Unknown<'a>> {
        let cannot_read = |key: &str| Some(Unknown::Unreadable(self.problem(key)));
        let presence = machine.presence.as_ref()?;
        let Some(told) = machine.report.as_ref() else {
            return Some(Unknown::Untold("its report is on its way"));
        };
        let Some(report) = told.value() else {
            return cannot_read(&keys::report(id));
        };
        if presence.value.is_none() {
            return cannot_read(&keys::machine(id));
        }
        if let Some(grant) = machine.grants.get(name).filter(|it| it.value.is_none()) {
            let key = keys::grant(id, name);
            // It may be going anywhere, until it says that it cannot read that either. No grant
            // takes the place of one that a newer engine wrote.
            if grant.is_newer || !report.problems.contains_key(&key) {
                return cannot_read(&key);
            }
        }
        // A session begins with one commit of both; news of its keys come one by one.
        if told.at < presence.at {
            return Some(Unknown::Untold("it has just begun another session"));
        }
        report.unknown.as_deref().map(Unknown::Untold)
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::machine::Metadata;
    use fleet_core::record::{self, Grant, MachineRecord, MachineReport};
    use serde::Serialize;

    use super::*;
    use crate::engine::fixture::{everywhere, machine as id, name, seen};

    fn put(index: &mut Index, revision: u64, key: String, value: &impl Serialize) {
        seen(index, revision, &key, Some(record::encode(value)));
    }

    fn comes(index: &mut Index, revision: u64) {
        let presence = MachineRecord {
            primary_ip: String::new(),
            metadata: Metadata::new(),
            version: String::new(),
            session: 7,
        };
        put(index, revision, keys::machine(&id()), &presence);
    }

    /// A unit everywhere, and one machine.
    fn index() -> Index {
        let mut index = Index::default();
        put(&mut index, 2, keys::unit(&name()), &everywhere());
        comes(&mut index, 3);
        let report: MachineReport = MachineReport::default();
        put(&mut index, 3, keys::report(&id()), &report);
        index
    }

    fn unknown(index: &mut Index) -> Option<String> {
        let situation = index.situation(&name(), 0).expect("there");
        let machine = situation.machines.first().expect("it belongs there");
        machine.unknown.map(|why| why.to_string())
    }

    #[test]
    fn report_of_earlier_session_does_not_count() {
        let mut index = index();
        assert_eq!(unknown(&mut index), None);
        // The news of its report, of the same commit, is on its way.
        comes(&mut index, 9);
        let why = unknown(&mut index).expect("unknown");
        assert_eq!(why, "it has just begun another session");
        let report: MachineReport = MachineReport::default();
        put(&mut index, 9, keys::report(&id()), &report);
        assert_eq!(unknown(&mut index), None);
    }

    #[test]
    fn a_machine_that_cannot_tell_yet_is_unknown_with_its_own_words() {
        let mut index = index();
        let report: MachineReport = MachineReport {
            unknown: Some("fleetd has just started there".to_owned()),
            ..MachineReport::default()
        };
        put(&mut index, 9, keys::report(&id()), &report);
        let why = unknown(&mut index).expect("unknown");
        assert_eq!(why, "fleetd has just started there");
    }

    #[test]
    fn machine_with_nothing_readable_may_have_the_unit() {
        let mut index = index();
        seen(&mut index, 8, &keys::metadata(&id()), Some(b"{".to_vec()));
        let machines =
            |index: &mut Index| index.situation(&name(), 0).expect("there").machines.len();
        assert_eq!(machines(&mut index), 0, "it says that it has none");
        seen(&mut index, 9, &keys::report(&id()), Some(b"{".to_vec()));
        assert!(unknown(&mut index).is_some());
    }

    #[test]
    fn machine_with_unreadable_grant_is_unknown_until_it_reports() {
        let mut index = index();
        let key = keys::grant(&id(), &name());
        let grant = Grant {
            unit: 1,
            revision: 1,
            session: 7,
            was_available: true,
            proved: false,
            leaves: false,
        };
        put(&mut index, 8, key.clone(), &grant);
        assert_eq!(unknown(&mut index), None);
        seen(&mut index, 9, &key, Some(b"{".to_vec()));
        assert!(unknown(&mut index).is_some());
        let report: MachineReport = MachineReport {
            problems: [(key.clone(), "it is damaged".to_owned())].into(),
            ..MachineReport::default()
        };
        put(&mut index, 10, keys::report(&id()), &report);
        assert_eq!(unknown(&mut index), None);
        // What a newer engine wrote is its own to change.
        seen(&mut index, 11, &key, Some(br#"{"format":99}"#.to_vec()));
        assert!(unknown(&mut index).is_some());
    }
}
