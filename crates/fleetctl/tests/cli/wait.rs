//! `start --wait` and `wait` on machines that obey late, never, or fail.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::session::{Session, transcript};

#[test]
fn wait_ends_when_every_machine_is_ready() {
    let session = Session::start();
    session.fleetd.hold();
    let command = "fleetctl start --wait hello";
    let mut waiting = session
        .command(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh runs");
    thread::sleep(Duration::from_millis(700)); // Longer than a long poll of the fake fleetd.
    assert!(waiting.try_wait().expect("asked").is_none());
    session.fleetd.release();
    let output = waiting.wait_with_output().expect("it ends");
    insta::assert_snapshot!(transcript(command, &output), @r"
    $ fleetctl start --wait hello
    o| Unit hello.service 
    o| Triggered global unit hello.service start
    e| hello.service: 0/3 ready
    e| hello.service: 3/3 ready
    [rc=0]
    ");
}

#[test]
fn wait_ends_early_when_the_unit_fails_everywhere() {
    let session = Session::start();
    insta::assert_snapshot!(session.run("fleetctl start --wait cant.run.service"), @r"
    $ fleetctl start --wait cant.run.service
    o| Unit cant.run.service 
    o| Triggered global unit cant.run.service start
    e| cant.run.service: 0/3 ready
    e| cant.run.service: not ready on 3f3fab35.../10.99.1.3: failed (failed), result exit-code
    e| cant.run.service: not ready on 631e82f9.../10.99.1.1: failed (failed), result exit-code
    e| cant.run.service: not ready on 6650bd8a.../10.99.1.2: failed (failed), result exit-code
    e| not every unit is ready; `fleetctl status UNIT` shows the progress, `fleetctl journal UNIT` the logs
    [rc=1]
    ");
}

#[test]
fn wait_reports_failures_of_units_started_earlier() {
    let session = Session::start();
    session.run("fleetctl start hello");
    session
        .fleetd
        .change(|world| world.fail("hello.service", "631e"));
    insta::assert_snapshot!(session.run("fleetctl start --wait hello"), @r"
    $ fleetctl start --wait hello
    e| hello.service: 2/3 ready
    e| hello.service: not ready on 631e82f9.../10.99.1.1: failed (failed), result exit-code
    e| not every unit is ready; `fleetctl status UNIT` shows the progress, `fleetctl journal UNIT` the logs
    [rc=1]
    ");
}

#[test]
fn start_is_not_judged_by_an_earlier_failure() {
    for (change, start) in [
        ("fleetctl stop hello", "fleetctl start --wait hello"),
        (
            "echo '# a new revision' >> hello.service",
            "fleetctl start --wait --replace hello",
        ),
    ] {
        let session = Session::start();
        session.run("fleetctl start hello");
        for machine in ["3f3f", "631e", "6650"] {
            session
                .fleetd
                .change(|world| world.fail("hello.service", machine));
        }
        session.fleetd.hold();
        session.run(change);
        let mut waiting = session
            .command(start)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh runs");
        thread::sleep(Duration::from_millis(200));
        assert!(waiting.try_wait().expect("asked").is_none(), "{start}");
        session.fleetd.release();
        assert!(waiting.wait().expect("it ends").success(), "{start}");
    }
}

#[test]
fn wait_ends_after_its_timeout() {
    let session = Session::start();
    session.fleetd.hold();
    insta::assert_snapshot!(session.run("fleetctl start --wait=200ms meta hello"), @r"
    $ fleetctl start --wait=200ms meta hello
    o| Unit meta.service 
    o| Unit hello.service 
    o| Triggered global unit meta.service start
    o| Triggered global unit hello.service start
    e| meta.service: 0/2 ready
    e| meta.service: not ready after 200ms
    e| meta.service: not ready on 3f3fab35.../10.99.1.3: that machine has not reported the unit yet
    e| meta.service: not ready on 6650bd8a.../10.99.1.2: that machine has not reported the unit yet
    e| hello.service: 0/3 ready
    e| hello.service: not ready after 200ms
    e| hello.service: not ready on 3f3fab35.../10.99.1.3: that machine has not reported the unit yet
    e| hello.service: not ready on 631e82f9.../10.99.1.1: that machine has not reported the unit yet
    e| hello.service: not ready on 6650bd8a.../10.99.1.2: that machine has not reported the unit yet
    e| not every unit is ready; `fleetctl status UNIT` shows the progress, `fleetctl journal UNIT` the logs
    [rc=1]
    ");
}

#[test]
fn wait_waits_for_units_started_by_another_client() {
    let session = Session::start();
    session.run("fleetctl submit hello");
    let command = "fleetctl wait hello";
    let waiting = session
        .command(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh runs");
    thread::sleep(Duration::from_millis(300));
    session.run("fleetctl start hello");
    let output = waiting.wait_with_output().expect("it ends");
    insta::assert_snapshot!(transcript(command, &output), @r"
    $ fleetctl wait hello
    e| hello.service: inactive, not started yet
    e| hello.service: 3/3 ready
    [rc=0]
    ");
}

#[test]
fn wait_ends_when_the_last_machine_removed_the_unit() {
    let session = Session::start();
    session.run("fleetctl start hello");
    session.fleetd.hold();
    session.run("fleetctl destroy hello");
    let command = "fleetctl wait --for=gone hello";
    let mut waiting = session
        .command(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh runs");
    thread::sleep(Duration::from_millis(700));
    assert!(waiting.try_wait().expect("asked").is_none());
    session.fleetd.release();
    let output = waiting.wait_with_output().expect("it ends");
    insta::assert_snapshot!(transcript(command, &output), @r"
    $ fleetctl wait --for=gone hello
    e| hello.service: still on 3 machines
    [rc=0]
    ");
}

#[test]
fn wait_has_an_exit_code_for_every_end() {
    let session = Session::start();
    session.run("fleetctl start hello cant.run.service; fleetctl submit meta");
    for (arguments, code) in [
        ("hello", 0),
        ("--for=active hello", 0),
        ("cant.run.service", 1),
        ("--timeout=200ms meta", 1),
        ("--for=gone --timeout=200ms hello", 1),
        ("helo", 4),
        ("--for=gone helo 'z*'", 0),
        ("--for=loaded hello", 2),
        ("", 2),
    ] {
        let told = session.run(&format!("fleetctl wait {arguments}"));
        assert!(told.ends_with(&format!("[rc={code}]\n")), "{told}");
    }
}

#[test]
fn unit_that_belongs_on_no_machine_exits_3_for_every_verb() {
    let session = Session::start();
    let file = "[Service]\nExecStart=/x\n[X-Fleet]\nGlobal=true\nMachineMetadata=host=n9\n";
    std::fs::write(session.path("none.service"), file).expect("written");
    insta::assert_snapshot!(session.run("fleetctl start --wait none"), @r"
    $ fleetctl start --wait none
    o| Unit none.service 
    o| Triggered global unit none.service start
    e| none.service: it runs on no machine: host does not match (3 machines)
    e| a unit belongs on no machine; it starts on the first that matches, and `fleetctl explain UNIT` shows why
    [rc=3]
    ");
    for command in ["wait none", "wait --for=active none", "status none"] {
        let told = session.run(&format!("fleetctl {command}"));
        assert!(told.ends_with("[rc=3]\n"), "{told}");
    }
    let started = session.run("fleetctl start none");
    assert!(started.ends_with("[rc=0]\n"), "{started}");
}
