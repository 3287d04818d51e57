//! Every registry key, in one place.
//!
//! Keys are relative to `etcd_key_prefix`, which the store puts in front. Unit names and machine ids are
//! valid by construction, so no key can leave its prefix.

use crate::machine::{MachineId, SessionId};
use crate::timestamp::BEYOND;
use crate::unit::UnitName;

/// A random id, made once; it distinguishes one registry from another.
pub const CLUSTER: &str = "cluster";
/// The record that a person accepted the registry as it is, for machines that held it.
pub const ACCEPTANCE: &str = "acceptance";
/// The engines' claim on leadership, under a lease.
pub const LEADER: &str = "leader";
/// Below it, one key for each unit.
pub const UNITS: &str = "units/";
/// Among the units, which their watch shows: what was destroyed last, in the commit that did. No
/// unit can have its name. So a destroyed unit leaves a trace. Without it, a registry that lacks
/// the unit would look like an older one, or like one that is being emptied.
pub const DESTROYED: &str = "units/+destroyed";
/// Below it, whose units directory wants a unit: `owners/<unit>/<machine>`. Keys of their own: in the unit's record, each
/// owner would be sent to every machine with every change of the unit.
pub const OWNERS: &str = "owners/";
/// Below it, older revisions: `history/<unit>/<number>`.
pub const HISTORY: &str = "history/";
/// Below it, each machine's presence, under that agent's lease.
pub const MACHINES: &str = "machines/";
/// Below it, what was set for a machine at run time.
pub const METADATA: &str = "metadata/";
/// Below it, each machine's report, under that agent's lease.
pub const REPORTS: &str = "reports/";

/// Below it, what the leader lets each machine run: `grants/<machine>/<unit>`.
pub const GRANTS: &str = "grants/";
/// Below it, how far each unit's rollout has come.
pub const ROLLOUTS: &str = "rollouts/";
/// Below it, what leaders decided: `events/<time>-<count>`.
pub const EVENTS: &str = "events/";
/// The last count that sorts as a number.
const COUNT_MAX: u64 = 999_999;
/// Below it, every machine that was here, whether or not it is now.
pub const KNOWN: &str = "known/";

/// A unit's key.
pub fn unit(name: &UnitName) -> String {
    format!("{UNITS}{name}")
}

/// The prefix of a unit's owners.
pub fn owners_of(name: &UnitName) -> String {
    format!("{OWNERS}{name}/")
}

/// The key that says that a machine's units directory owns a unit.
pub fn owner(name: &UnitName, machine: &MachineId) -> String {
    format!("{OWNERS}{name}/{machine}")
}

/// The unit and the machine that a key below [`OWNERS`] names.
pub fn owner_of(key: &str) -> Option<(UnitName, MachineId)> {
    let (unit, machine) = key.strip_prefix(OWNERS)?.split_once('/')?;
    Some((UnitName::parse(unit).ok()?, exactly(machine)?))
}

/// The prefix of a unit's older revisions.
pub fn history_of(name: &UnitName) -> String {
    format!("{HISTORY}{name}/")
}

/// The key of one older revision. The number is padded so that keys sort as numbers do.
pub fn history(name: &UnitName, number: u64) -> String {
    format!("{HISTORY}{name}/{number:010}")
}

/// The contents that a unit ever had. It is no older revision, and stays when the unit is
/// destroyed.
pub fn seen(name: &UnitName) -> String {
    format!("{HISTORY}{name}")
}

/// The unit that such a key names.
pub fn seen_of(key: &str) -> Option<UnitName> {
    UnitName::parse(key.strip_prefix(HISTORY)?).ok()
}

/// The unit and the number that a key below [`HISTORY`] names.
pub fn past_of(key: &str) -> Option<(UnitName, u64)> {
    let (unit, number) = key.strip_prefix(HISTORY)?.split_once('/')?;
    Some((UnitName::parse(unit).ok()?, number.parse().ok()?))
}

/// A machine's presence.
pub fn machine(id: &MachineId) -> String {
    format!("{MACHINES}{id}")
}

/// Records that another machine has that id too, and stands aside. It is below the presence, so one
/// right of etcd covers both.
pub fn twin(id: &MachineId, session: SessionId) -> String {
    format!("{MACHINES}{id}/{session}")
}

/// The machine that a key below [`MACHINES`] is a [`twin`] of, and the twin's session.
pub fn twin_of(key: &str) -> Option<(MachineId, SessionId)> {
    let (machine, session) = key.strip_prefix(MACHINES)?.split_once('/')?;
    Some((exactly(machine)?, session.parse().ok()?))
}

/// The metadata and scheduling that were set for a machine at run time.
pub fn metadata(id: &MachineId) -> String {
    format!("{METADATA}{id}")
}

/// A machine's report.
pub fn report(id: &MachineId) -> String {
    format!("{REPORTS}{id}")
}

/// The base of a machine's report. It is below the report, so one right of etcd covers both.
pub fn report_base(id: &MachineId) -> String {
    format!("{REPORTS}{id}/base")
}

/// The machine whose report's base a key is.
pub fn report_base_of(key: &str) -> Option<MachineId> {
    exactly(key.strip_prefix(REPORTS)?.strip_suffix("/base")?)
}

/// The prefix of a machine's grants.
pub fn grants_of(id: &MachineId) -> String {
    format!("{GRANTS}{id}/")
}

/// The revision of a unit that the leader lets a machine run.
pub fn grant(id: &MachineId, name: &UnitName) -> String {
    format!("{GRANTS}{id}/{name}")
}

/// How far a unit's rollout has come.
pub fn rollout(name: &UnitName) -> String {
    format!("{ROLLOUTS}{name}")
}

/// An event's key. Keys sort by time (milliseconds since 1970), then by `count`.
pub fn event(at: u64, count: u64) -> String {
    format!("{EVENTS}{at:016}-{count:06}")
}

/// The time and the count of an event's key. None for a time beyond the year 9999, which no leader wrote: none can go on
/// after every number there is.
pub fn event_of(key: &str) -> Option<(u64, u64)> {
    let (at, count) = key.strip_prefix(EVENTS)?.split_once('-')?;
    let (at, count) = (at.parse().ok()?, count.parse().ok()?);
    (at < BEYOND && event(at, count) == key).then_some((at, count))
}

/// The key after that one's, for something that happened at that time. The clock of a new leader
/// may be behind that of the one before. Events stay in the order of decisions.
pub fn next_event(last: (u64, u64), at: u64) -> (u64, u64) {
    match last {
        (last, _) if at > last => (at, 0),
        (last, COUNT_MAX..) => (last + 1, 0),
        (last, count) => (last, count + 1),
    }
}

/// A machine that was here.
pub fn known(id: &MachineId) -> String {
    format!("{KNOWN}{id}")
}

/// The machine and the unit that a key below [`GRANTS`] names.
pub fn grant_of(key: &str) -> Option<(MachineId, UnitName)> {
    let (machine, unit) = key.strip_prefix(GRANTS)?.split_once('/')?;
    Some((exactly(machine)?, UnitName::parse(unit).ok()?))
}

/// The unit that a key below [`ROLLOUTS`] names.
pub fn rollout_of(key: &str) -> Option<UnitName> {
    UnitName::parse(key.strip_prefix(ROLLOUTS)?).ok()
}

/// Returns whether a key instructs that machine what to run.
pub fn instructs(key: &str, machine: &MachineId) -> bool {
    key.starts_with(UNITS) || machine_of(METADATA, key).as_ref() == Some(machine)
}

/// The unit that a key below [`UNITS`] names.
pub fn unit_of(key: &str) -> Option<UnitName> {
    UnitName::parse(key.strip_prefix(UNITS)?).ok()
}

/// The machine that a key below `prefix` names.
pub fn machine_of(prefix: &str, key: &str) -> Option<MachineId> {
    exactly(key.strip_prefix(prefix)?)
}

/// The machine of that id. A key with blanks around it belongs to no machine: a key is never
/// written under another name than read.
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
    fn keys_name_what_they_were_made_of() {
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
    fn an_event_comes_after_those_before_it_whatever_the_clock_says() {
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
