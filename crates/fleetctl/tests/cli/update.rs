//! The requests of fleetctl when units are created, replaced and destroyed.

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
fn invalid_content_creates_nothing() {
    let session = Session::start();
    assert!(
        session
            .targets_of("fleetctl start hello bad-machineid meta")
            .is_empty()
    );
}

#[test]
fn content_refused_by_fleetd_starts_nothing() {
    let session = Session::start();
    session.run("cp hello.service refused.service");
    assert_eq!(
        session.targets_of("fleetctl start hello refused meta"),
        ["loaded"; 3]
    );
}

#[test]
fn last_line_lists_done_and_undone_units() {
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
fn many_units_are_read_at_once_and_reported_in_order() {
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
fn update_never_lowers_the_target_state() {
    let session = Session::start();
    session.run("fleetctl start hello");
    session.run("echo '# a new revision' >> hello.service");
    assert_eq!(
        session.targets_of("fleetctl start --replace hello"),
        ["launched"]
    );
}

#[test]
fn unchanged_unit_is_not_written_again() {
    let session = Session::start();
    session.run("fleetctl start hello");
    assert!(session.targets_of("fleetctl start hello").is_empty());
    session.run("fleetctl stop hello");
    assert!(session.targets_of("fleetctl stop hello").is_empty());
}

#[test]
fn unreadable_unit_can_be_destroyed() {
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
fn command_uses_one_connection_for_a_unit() {
    let session = Session::start();
    session.run("fleetctl start --wait hello");
    session
        .fleetd
        .change(|world| assert_eq!(world.connections, 1));
}
