//! What fleetctl asks of the registry when units are created, replaced and destroyed.

use crate::session::Session;

impl Session {
    /// Runs a command, and returns the target states that it set.
    fn targets_of(&self, command: &str) -> Vec<String> {
        self.fleetd.change(|world| world.targets.clear());
        self.run(command);
        let mut targets = Vec::new();
        self.fleetd
            .change(|world| targets.clone_from(&world.targets));
        targets
    }
}

#[test]
fn all_content_is_in_the_registry_before_anything_starts() {
    let session = Session::start();
    assert_eq!(
        session.targets_of("fleetctl start hello meta"),
        ["loaded", "loaded", "launched", "launched"]
    );
}

#[test]
fn content_that_is_invalid_creates_nothing() {
    let session = Session::start();
    assert!(
        session
            .targets_of("fleetctl start hello bad-machineid meta")
            .is_empty()
    );
}

#[test]
fn content_that_fleetd_refuses_starts_nothing() {
    let session = Session::start();
    session.run("cp hello.service refused.service");
    assert_eq!(
        session.targets_of("fleetctl start hello refused meta"),
        ["loaded"; 3]
    );
}

#[test]
fn what_was_done_and_what_was_not_is_said_at_the_end() {
    let session = Session::start();
    session.run("cp hello.service refused.service");
    insta::assert_snapshot!(session.run("fleetctl submit hello refused meta"), @r"
    $ fleetctl submit hello refused meta
    o| Unit hello.service 
    o| Unit meta.service 
    e| Error creating units: failed creating unit refused.service: the name is taken on a machine
    e| submitted: hello.service, meta.service; not submitted: refused.service
    [rc=1]
    ");
}

#[test]
fn many_units_are_asked_about_at_once_and_told_in_order() {
    let session = Session::start();
    session.run("for n in $(seq 100); do cp hello.service u$n.service; done");
    let started = session.run("fleetctl start $(seq -f u%.0f.service 100)");
    let told: Vec<&str> = started
        .lines()
        .filter(|line| line.starts_with("o|"))
        .collect();
    let expected: Vec<String> = (1..=100)
        .map(|n| format!("o| Unit u{n}.service "))
        .chain((1..=100).map(|n| format!("o| Triggered global unit u{n}.service start")))
        .collect();
    assert_eq!(told, expected);
    let targets = session.targets_of("fleetctl stop 'u*'");
    assert_eq!(targets, ["loaded"; 100]);
    session
        .fleetd
        .change(|world| assert!(world.connections <= 2 * 32, "{}", world.connections));
}

#[test]
fn an_update_never_takes_a_running_unit_back() {
    let session = Session::start();
    session.run("fleetctl start hello");
    session.run("echo '# a new revision' >> hello.service");
    assert_eq!(
        session.targets_of("fleetctl start --replace hello"),
        ["launched"]
    );
}

#[test]
fn what_is_done_already_is_not_asked_again() {
    let session = Session::start();
    session.run("fleetctl start hello");
    assert!(session.targets_of("fleetctl start hello").is_empty());
    session.run("fleetctl stop hello");
    assert!(session.targets_of("fleetctl stop hello").is_empty());
}

#[test]
fn a_unit_that_fleetd_cannot_read_can_be_destroyed() {
    let session = Session::start();
    session.run("fleetctl submit hello");
    session
        .fleetd
        .change(|world| world.damaged.push("hello.service".to_owned()));
    insta::assert_snapshot!(session.run("fleetctl destroy hello nosuch"), @r"
    $ fleetctl destroy hello nosuch
    o| Destroyed hello.service
    e| Unit nosuch.service not found in registry
    [rc=0]
    ");
}

#[test]
fn a_command_asks_everything_about_a_unit_over_one_connection() {
    let session = Session::start();
    session.run("fleetctl start --wait hello");
    session
        .fleetd
        .change(|world| assert_eq!(world.connections, 1));
}
