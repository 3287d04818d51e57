//! All registry keys, in one place.
//!
//! Keys are relative to `etcd_key_prefix`; the store adds it. Unit names and machine ids are valid
//! by construction, so no key can leave its prefix.

use crate::machine::{MachineId, SessionId};
use crate::timestamp::BEYOND;
use crate::unit::UnitName;

/// The random id of a registry, created once. It distinguishes one registry from another.
pub const CLUSTER: &str = "cluster";
/// The record that an operator accepted the registry as it is, for machines that held it.
pub const ACCEPTANCE: &str = "acceptance";
/// The claim of the leading engine, under its lease.
pub const LEADER: &str = "leader";
/// The prefix of the units, one key each.
pub const UNITS: &str = "units/";
/// The unit that was destroyed last, written by the commit that destroyed it.
///
/// It lies among the units, so their watch shows it; no unit can have this name. A registry that
/// lacks a unit without this trace looks like an older registry, or one being emptied.
pub const DESTROYED: &str = "units/+destroyed";
/// The prefix of the units directories' claims: `owners/<unit>/<machine>`.
///
/// Owners have keys of their own. In the unit's record, every change of the unit would send all
/// owners to every machine.
pub const OWNERS: &str = "owners/";
/// The prefix of older revisions: `history/<unit>/<number>`.
pub const HISTORY: &str = "history/";
/// The prefix of the machines' presences, each under its agent's lease.
pub const MACHINES: &str = "machines/";
/// The prefix of what was set for machines at run time.
pub const METADATA: &str = "metadata/";
/// The prefix of the machines' reports, each under its agent's lease.
pub const REPORTS: &str = "reports/";

/// The prefix of the leader's grants: `grants/<machine>/<unit>`.
pub const GRANTS: &str = "grants/";
/// The prefix of the progress of rollouts, one key for each unit.
pub const ROLLOUTS: &str = "rollouts/";
/// The prefix of the leaders' events: `events/<time>-<count>`.
pub const EVENTS: &str = "events/";
/// The largest count that still sorts as a number.
const COUNT_MAX: u64 = 999_999;
/// The prefix of all known machines, live or offline.
pub const KNOWN: &str = "known/";

/// Returns the key of a unit.
pub fn unit(name: &UnitName) -> String {
    format!("{UNITS}{name}")
}

/// Returns the prefix of a unit's owners.
pub fn owners_of(name: &UnitName) -> String {
    format!("{OWNERS}{name}/")
}

/// Returns the key of a machine's units directory as an owner of a unit.
pub fn owner(name: &UnitName, machine: &MachineId) -> String {
    format!("{OWNERS}{name}/{machine}")
}

/// Returns the unit and the machine of a key below [`OWNERS`].
pub fn owner_of(key: &str) -> Option<(UnitName, MachineId)> {
    let (unit, machine) = key.strip_prefix(OWNERS)?.split_once('/')?;
    Some((UnitName::parse(unit).ok()?, exactly(machine)?))
}

/// Returns the prefix of a unit's older revisions.
pub fn history_of(name: &UnitName) -> String {
    format!("{HISTORY}{name}/")
}

/// Returns the key of an older revision. The number is padded, so keys sort by number.
pub fn history(name: &UnitName, number: u64) -> String {
    format!("{HISTORY}{name}/{number:010}")
}

/// Returns the key of the contents that a unit ever had. It is no older revision, and it stays when
/// the unit is destroyed.
pub fn seen(name: &UnitName) -> String {
    format!("{HISTORY}{name}")
}

/// Returns the unit of a key made by [`seen`].
pub fn seen_of(key: &str) -> Option<UnitName> {
    UnitName::parse(key.strip_prefix(HISTORY)?).ok()
}

/// Returns the unit and the number of a key below [`HISTORY`].
pub fn past_of(key: &str) -> Option<(UnitName, u64)> {
    let (unit, number) = key.strip_prefix(HISTORY)?.split_once('/')?;
    Some((UnitName::parse(unit).ok()?, number.parse().ok()?))
}

/// Returns the key of a machine's presence.
pub fn machine(id: &MachineId) -> String {
    format!("{MACHINES}{id}")
}

/// Returns the key of a twin: another machine with the same id, which stands aside. It is below the
/// presence, so one etcd permission covers both.
pub fn twin(id: &MachineId, session: SessionId) -> String {
    format!("{MACHINES}{id}/{session}")
}

/// Returns the machine and the session of a [`twin`] key below [`MACHINES`].
pub fn twin_of(key: &str) -> Option<(MachineId, SessionId)> {
    let (machine, session) = key.strip_prefix(MACHINES)?.split_once('/')?;
    Some((exactly(machine)?, session.parse().ok()?))
}

/// Returns the key of the metadata and scheduling set for a machine at run time.
pub fn metadata(id: &MachineId) -> String {
    format!("{METADATA}{id}")
}

/// Returns the key of a machine's report.
pub fn report(id: &MachineId) -> String {
    format!("{REPORTS}{id}")
}

/// Returns the key of the base of a machine's report. It is below the report, so one etcd
/// permission covers both.
pub fn report_base(id: &MachineId) -> String {
    format!("{REPORTS}{id}/base")
}

/// Returns the machine of a key made by [`report_base`].
pub fn report_base_of(key: &str) -> Option<MachineId> {
    exactly(key.strip_prefix(REPORTS)?.strip_suffix("/base")?)
}

/// Returns the prefix of a machine's grants.
pub fn grants_of(id: &MachineId) -> String {
    format!("{GRANTS}{id}/")
}

/// Returns the key of the grant to a machine for a unit.
pub fn grant(id: &MachineId, name: &UnitName) -> String {
    format!("{GRANTS}{id}/{name}")
}

/// Returns the key of the progress of a unit's rollout.
pub fn rollout(name: &UnitName) -> String {
    format!("{ROLLOUTS}{name}")
}

/// Returns the key of an event. Keys sort by time (milliseconds since 1970), then by `count`.
pub fn event(at: u64, count: u64) -> String {
    format!("{EVENTS}{at:016}-{count:06}")
}

/// Returns the time and the count of an event's key. `None` for a time beyond the year 9999: no
/// leader wrote it, and counting could not continue after it.
pub fn event_of(key: &str) -> Option<(u64, u64)> {
    let (at, count) = key.strip_prefix(EVENTS)?.split_once('-')?;
    let (at, count) = (at.parse().ok()?, count.parse().ok()?);
    (at < BEYOND && event(at, count) == key).then_some((at, count))
}

/// Returns the next event's key for something that happened at that time. A new leader's clock may
/// be behind its predecessor's; events still sort in the order of decisions.
pub fn next_event(last: (u64, u64), at: u64) -> (u64, u64) {
    match last {
        (last, _) if at > last => (at, 0),
        (last, COUNT_MAX..) => (last + 1, 0),
        (last, count) => (last, count + 1),
    }
}

/// Returns the key of a known machine.
pub fn known(id: &MachineId) -> String {
    format!("{KNOWN}{id}")
}

/// Returns the machine and the unit of a key below [`GRANTS`].
pub fn grant_of(key: &str) -> Option<(MachineId, UnitName)> {
    let (machine, unit) = key.strip_prefix(GRANTS)?.split_once('/')?;
    Some((exactly(machine)?, UnitName::parse(unit).ok()?))
}

/// Returns the unit of a key below [`ROLLOUTS`].
pub fn rollout_of(key: &str) -> Option<UnitName> {
    UnitName::parse(key.strip_prefix(ROLLOUTS)?).ok()
}

/// Returns whether a key tells that machine what to run.
pub fn instructs(key: &str, machine: &MachineId) -> bool {
    key.starts_with(UNITS) || machine_of(METADATA, key).as_ref() == Some(machine)
}

/// Returns the unit of a key below [`UNITS`].
pub fn unit_of(key: &str) -> Option<UnitName> {
    UnitName::parse(key.strip_prefix(UNITS)?).ok()
}

/// Returns the machine of a key below `prefix`.
pub fn machine_of(prefix: &str, key: &str) -> Option<MachineId> {
    exactly(key.strip_prefix(prefix)?)
}

/// Returns the machine of that exact id. A key with blanks around the id belongs to no machine: a
/// key is always written under the name it is read by.
fn exactly(id: &str) -> Option<MachineId> {
    let machine = MachineId::parse(id).ok()?;
    (machine.as_str() == id).then_some(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine_id() -> MachineId {
        MachineId::parse(&"b".repeat(32)).expect("valid")
    }

    #[test]
    fn keys_are_read_back_as_they_were_made() {
        let name = UnitName::parse("web.service").expect("valid");
        assert_eq!(unit_of(&unit(&name)), Some(name.clone()));
        assert_eq!(unit_of("units/../leader"), None);
        assert_eq!(unit_of("history/web.service"), None);
        let machine = MachineId::parse(&"a".repeat(32)).expect("valid");
        assert_eq!(
            grant_of(&grant(&machine, &name)),
            Some((machine, name.clone()))
        );
        assert_eq!(grant_of("grants/../web.service"), None);
        let owner = owner(&name, &machine_id());
        assert_eq!(owner_of(&owner), Some((name.clone(), machine_id())));
        assert!(owner.starts_with(&owners_of(&name)));
        assert_eq!(owner_of("owners/web.service/x"), None);
        assert_eq!(twin_of(&twin(&machine_id(), -7)), Some((machine_id(), -7)));
        assert_eq!(twin_of(&super::machine(&machine_id())), None);
        assert_eq!(machine_of(MACHINES, &twin(&machine_id(), 7)), None);
        let base = report_base(&machine_id());
        assert_eq!(report_base_of(&base), Some(machine_id()));
        assert_eq!(machine_of(REPORTS, &base), None);
        assert_eq!(report_base_of(&report(&machine_id())), None);
        assert_eq!(
            machine_of(MACHINES, &format!("machines/{}\n", "a".repeat(32))),
            None
        );
        assert_eq!(rollout_of(&rollout(&name)), Some(name.clone()));
        assert!(event(9, 10) < event(10, 9));
        assert_eq!(event_of(&event(9, 10)), Some((9, 10)));
        assert_eq!(event_of(&event(BEYOND, 0)), None);
        assert!(DESTROYED.starts_with(UNITS) && unit_of(DESTROYED).is_none());
        for foreign in ["events/9-10", "events/", "events/0000000000000009", "x"] {
            assert_eq!(event_of(foreign), None);
        }
        assert_eq!(past_of(&history(&name, 9)), Some((name.clone(), 9)));
        assert_eq!(seen_of(&seen(&name)), Some(name.clone()));
        assert_eq!(
            (past_of(&seen(&name)), seen_of(&history(&name, 9))),
            (None, None)
        );
        assert!(history(&name, 9) < history(&name, 10));
        assert!(history(&name, 9).starts_with(&history_of(&name)));
    }

    #[test]
    fn event_key_sorts_after_earlier_ones_despite_the_clock() {
        let clock = [10, 11, 11, 5, 5, 12, 1, 11];
        let mut last = (0, 0);
        let keys = clock.map(|at| {
            last = next_event(last, at);
            event(last.0, last.1)
        });
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        assert_eq!(next_event((9, COUNT_MAX), 3), (10, 0));
        assert_eq!(next_event((9, 7), 10), (10, 0));
    }
}
