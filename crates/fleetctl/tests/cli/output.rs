//! What `--output`, `--color` and `--watch` make of listings and of `status`.

use crate::session::Session;

fn started() -> Session {
    let session = Session::start();
    session.run("fleetctl start hello cant.run.service");
    session
}

#[test]
fn a_wide_table_tells_what_a_machine_knows_of_its_units() {
    insta::assert_snapshot!(started().run("fleetctl list-units -o wide"));
}

#[test]
fn machines_as_a_wide_table() {
    insta::assert_snapshot!(started().run("fleetctl list-machines --output=wide"));
}

#[test]
fn units_as_a_wide_table() {
    insta::assert_snapshot!(started().run("fleetctl list-unit-files -o wide"));
}

#[test]
fn machines_as_json() {
    insta::assert_snapshot!(started().run("fleetctl list-machines -o json"));
}

#[test]
fn machines_as_yaml() {
    insta::assert_snapshot!(started().run("fleetctl list-machines -o yaml"));
}

#[test]
fn states_as_json() {
    insta::assert_snapshot!(started().run("fleetctl list-units -o json"));
}

#[test]
fn states_as_yaml() {
    insta::assert_snapshot!(started().run("fleetctl list-units -o yaml"));
}

#[test]
fn units_as_json() {
    insta::assert_snapshot!(started().run("fleetctl list-unit-files -o json"));
}

#[test]
fn units_as_yaml() {
    insta::assert_snapshot!(started().run("fleetctl list-unit-files -o yaml"));
}

#[test]
fn nothing_to_list_is_a_document_too() {
    insta::assert_snapshot!(Session::start().run("fleetctl list-units -o json; fleetctl list-units -o yaml"), @r#"
    $ fleetctl list-units -o json; fleetctl list-units -o yaml
    o| {
    o|   "apiVersion": "fleetctl/v1",
    o|   "kind": "UnitStateList",
    o|   "items": []
    o| }
    o| ---
    o| apiVersion: fleetctl/v1
    o| kind: UnitStateList
    o| items: []
    [rc=0]
    "#);
}

#[test]
fn names_stand_alone_and_once() {
    insta::assert_snapshot!(started().run("fleetctl list-units -o name; fleetctl list-machines -o name"), @r"
    $ fleetctl list-units -o name; fleetctl list-machines -o name
    o| cant.run.service
    o| hello.service
    o| 3f3fab35461707ed4699d4df0c87385e
    o| 631e82f9bbd25efb88aad49e6c499b79
    o| 6650bd8acb14499365bce5a3533bd6c5
    [rc=0]
    ");
}

#[test]
fn columns_are_chosen_for_tables_only() {
    insta::assert_snapshot!(Session::start().run("fleetctl list-units -o json --fields=unit"), @"
    $ fleetctl list-units -o json --fields=unit
    e| error: --fields chooses the columns of a table: leave it out here
    [rc=2]
    ");
}

#[test]
fn flags_take_truth_values_as_in_fleet_1_0() {
    insta::assert_snapshot!(
        Session::start().run("fleetctl list-machines --no-legend=true --full=false --fields=machine"),
        @r"
    $ fleetctl list-machines --no-legend=true --full=false --fields=machine
    o| 3f3fab35...
    o| 631e82f9...
    o| 6650bd8a...
    [rc=0]
    "
    );
}
