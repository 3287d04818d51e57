//! Finds the machines that a text names.

use fleet_core::api::{Machine, UnitStatus};

/// The reason why a text does not name one machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoMachine {
    /// No live machine's id begins with the text.
    #[error(
        "no live machine has an id that begins with \"{0}\"; `fleetctl list-machines` shows them"
    )]
    Unknown(String),
    /// Several ids begin with the text.
    #[error(
        "\"{prefix}\" is ambiguous: {count} machines have such an id, {first} and {second} among them; type more of it"
    )]
    Ambiguous {
        prefix: String,
        count: usize,
        first: String,
        second: String,
    },
}

/// Returns the only machine whose id begins with the text. The form of listings,
/// `190c6f8f.../10.0.0.1`, is accepted too.
pub(crate) fn find<'a>(machines: &'a [Machine], typed: &str) -> Result<&'a Machine, NoMachine> {
    let prefix = typed
        .split_once("...")
        .map_or(typed, |(prefix, _)| prefix)
        .to_ascii_lowercase();
    let matching: Vec<&Machine> = machines
        .iter()
        .filter(|machine| !prefix.is_empty() && machine.id.starts_with(&prefix))
        .collect();
    match matching[..] {
        [machine] => Ok(machine),
        [] => Err(NoMachine::Unknown(prefix)),
        [first, second, ..] => Err(NoMachine::Ambiguous {
            prefix,
            count: matching.len(),
            first: first.id.clone(),
            second: second.id.clone(),
        }),
    }
}

/// Returns the machines where a unit belongs, ordered by id.
pub(crate) fn placed(status: &UnitStatus) -> Vec<Machine> {
    let placed = status.machines.iter().filter(|unit| unit.placed);
    let machine = placed.map(|unit| Machine {
        id: unit.machine_id.clone(),
        primary_ip: unit.primary_ip.clone(),
        ..Machine::default()
    });
    machine.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_found_by_the_beginning_of_its_id() {
        let machines = ["190c6f8f", "190caaaa", "3f3fab35"].map(|id| Machine {
            id: id.into(),
            ..Machine::default()
        });
        let id = |typed| find(&machines, typed).map(|machine| machine.id.as_str());
        assert_eq!(id("3").expect("one"), "3f3fab35");
        assert_eq!(id("190C6").expect("one"), "190c6f8f");
        assert_eq!(id("3f3fab35.../10.0.0.1").expect("one"), "3f3fab35");
        let error = |typed| id(typed).expect_err("not one").to_string();
        assert!(error("190c").contains("ambiguous: 2 machines"));
        assert!(error("ffff").contains("list-machines"));
        assert!(error("").contains("no live machine"));
    }
}
