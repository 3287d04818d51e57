//! Explores a small fleet exhaustively: every order in which three machines, a leader and people
//! can act, within a number of events. The leader decides with the real `rollout::step`. Agents
//! decide with the real `rollout::choose`, and orders are followed with the real `rollout::follow`
//! and `succeed`.
//!
//! The invariants are those of "What must never happen" in `ARCHITECTURE.md`:
//!
//! * 4: an update makes no more machines unavailable than its budget, which counts machines that it
//!   cut off.
//! * 5: no write of a stale leader lands, and none that was decided from an older record.
//! * 10: no revision is promoted that no machine has proved.
//!
//! `Broken` names rules that are broken here on every run, to see that each invariant can fail.
//! `docs/development/simulation.md` lists rules of the product that were broken.

mod leader;
mod machine;
mod model;
mod people;
mod world;

use stateright::{Checker, HasDiscoveries, Model};

use self::model::{Broken, Fleet, Nature};

const FOUR: &str = "4: no more machines are unavailable than the budget";
const FIVE: &str = "5: no stale write lands";
const TEN: &str = "10: no revision is promoted that no machine has proved";

/// Explores every history with that many events. Returns how many states there are.
fn explore(nature: Nature, events: u8) -> usize {
    let fleet = Fleet::of(nature, events);
    let checker = fleet.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states: {nature:?}, {events} events");
    checker.assert_properties();
    states
}

/// Whether the exploration finds that this rule is broken.
fn finds(property: &'static str, broken: Broken, nature: Nature) {
    let fleet = Fleet {
        broken: Some(broken),
        ..Fleet::of(nature, 2)
    };
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = fleet.checker().threads(2).finish_when(found);
    let path = checker.spawn_bfs().join().discovery(property);
    let path = path.unwrap_or_else(|| panic!("{broken:?} is not noticed: {property}"));
    println!("{broken:?}: {property}: {:?}", path.into_actions());
}

#[test]
fn good_update_keeps_the_invariants() {
    // Two events are millions of states, since this one reaches every machine.
    assert!(explore(Nature::Good, 1) > 10_000);
}

#[test]
fn failing_update_keeps_the_invariants() {
    assert!(explore(Nature::Fails, 2) > 10_000);
}

#[test]
fn update_that_cuts_machines_off_keeps_the_invariants() {
    assert!(explore(Nature::CutsOff, 2) > 10_000);
}

#[test]
fn larger_budget_breaks_invariant_4() {
    finds(FOUR, Broken::Budget, Nature::Good);
}

#[test]
fn forgetting_lost_machines_breaks_invariant_4() {
    finds(FOUR, Broken::LostMachines, Nature::CutsOff);
}

#[test]
fn commit_without_the_claim_breaks_invariant_5() {
    finds(FIVE, Broken::ClaimGuard, Nature::Good);
}

#[test]
fn commit_over_a_newer_record_breaks_invariant_5() {
    finds(FIVE, Broken::UnitGuard, Nature::Good);
}

#[test]
fn reports_taken_for_proof_break_invariant_10() {
    finds(TEN, Broken::Proof, Nature::Fails);
}
