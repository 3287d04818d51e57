//! The effect of `--output`, `--color` and `--watch` on listings and on `status`.

use crate::session::Session;

fn started() -> Session {
    let session = Session::start();
    session.run("fleetctl start hello cant.run.service");
    session
}

#[test]
fn states_as_a_wide_table() {
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
fn empty_listing_is_a_document() {
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
fn names_are_printed_alone_and_once() {
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

#[test]
fn status_of_units_as_json() {
    insta::assert_snapshot!(started().run("fleetctl status -o json hello cant.run.service"));
}

#[test]
fn status_of_units_as_yaml() {
    insta::assert_snapshot!(started().run("fleetctl status -o yaml hello"));
}

#[test]
fn status_of_the_cluster_as_json() {
    insta::assert_snapshot!(Session::start().run("fleetctl status -o json"));
}

#[test]
fn states_are_coloured_on_request() {
    let session = started();
    for command in ["list-units", "status cant.run.service"] {
        let painted = session.run(&format!("fleetctl {command} --color=always"));
        assert!(painted.contains("\x1b[31mfailed"), "{painted}");
        for plain in ["auto", "never"] {
            let plain = session.run(&format!("fleetctl {command} --color={plain}"));
            assert!(!plain.contains('\x1b'), "{plain}");
        }
    }
}

#[test]
fn terminal_gets_colours_unless_it_refuses_them() {
    let session = started();
    // script(1) runs a command on a terminal of its own.
    let on_a_terminal = "script -qec 'fleetctl list-units' /dev/null";
    assert!(
        session
            .run(&format!("TERM=xterm {on_a_terminal}"))
            .contains("\x1b[32mactive")
    );
    for plain in ["NO_COLOR=1 TERM=xterm", "TERM=dumb"] {
        let listed = session.run(&format!("{plain} {on_a_terminal}"));
        assert!(!listed.contains('\x1b'), "{listed}");
    }
}

#[test]
fn a_misspelt_unit_is_recognised() {
    let session = started();
    let commands = ["status helo", "stop helo", "cat helo", "start helo"];
    let told = commands.map(|command| session.run(&format!("fleetctl {command}")));
    insta::assert_snapshot!(told.concat(), @r"
    $ fleetctl status helo
    e| Unit helo.service does not exist. Did you mean hello.service?
    [rc=4]
    $ fleetctl stop helo
    e| Units not found in registry
    e| Unit helo.service not found in registry; did you mean hello.service?
    [rc=0]
    $ fleetctl cat helo
    e| Unit helo.service not found; did you mean hello.service?
    [rc=1]
    $ fleetctl start helo
    e| Error creating units: unable to find Unit(helo.service) in Registry or on filesystem; did you mean hello.service?
    [rc=1]
    ");
}
