//! What scripts rely on beyond texts: closed pipes, exit codes, endpoints.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use crate::session::Session;

#[test]
fn closed_stdout_is_no_failure_and_stops_no_work() {
    let session = Session::start();
    session.run("fleetctl start hello.service meta.service");
    for command in ["fleetctl list-units", "fleetctl destroy hello meta"] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let output = session.command(command).stdout(writer).output();
        let output = output.expect("sh runs");
        assert!(output.status.success(), "{command}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
    }
    insta::assert_snapshot!(session.run("fleetctl list-unit-files --no-legend"), @r"
    $ fleetctl list-unit-files --no-legend
    [rc=0]
    ");
}

#[test]
fn full_disk_behind_stdout_is_a_failure() {
    let session = Session::start();
    insta::assert_snapshot!(session.run("fleetctl list-machines > /dev/full"), @r"
    $ fleetctl list-machines > /dev/full
    e| cannot write to stdout: No space left on device (os error 28)
    [rc=1]
    ");
}

#[test]
fn usage_errors_exit_2_and_leave_stdout_empty() {
    let session = Session::start();
    for command in ["list-units --nope", "nosuch", "metadata x", "metadata x y"] {
        let output = session.command(&format!("fleetctl {command}")).output();
        let output = output.expect("sh runs");
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(output.stdout.is_empty(), "{command}");
    }
}

#[test]
fn help_is_printed_on_stdout() {
    let session = Session::start();
    for command in ["", "--help", "-h", "help start", "start --help"] {
        let output = session.command(&format!("fleetctl {command}")).output();
        let output = output.expect("sh runs");
        assert!(output.status.success(), "{command}");
        assert!(output.stderr.is_empty(), "{command}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: fleetctl"));
    }
}

#[test]
fn status_exits_as_systemctl_does() {
    let session = Session::start();
    session.run("fleetctl start hello cant.run.service");
    session.run("fleetctl load meta");
    for (units, code) in [
        ("hello", 0),
        ("hello cant.run.service", 3),
        ("meta", 3),
        ("nosuch meta", 4),
        ("'h*'", 0),
    ] {
        let status = session
            .command(&format!("fleetctl status {units}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("sh runs");
        assert_eq!(status.code(), Some(code), "{units}");
    }
}

#[test]
fn truncated_listing_starts_again_or_fails() {
    let session = Session::start();
    session.run("fleetctl start hello.service meta.service");
    let whole = session.run("fleetctl list-units");
    assert!(whole.lines().count() > 4, "{whole}");
    session.fleetd.change(|world| world.forgets = 2);
    assert_eq!(session.run("fleetctl list-units"), whole);
    session.fleetd.change(|world| world.forgets = 3);
    assert_eq!(
        session.run("fleetctl list-units"),
        "$ fleetctl list-units\ne| Error retrieving list of units from repository: list again\n[rc=1]\n"
    );
    session.fleetd.change(|world| assert_eq!(world.forgets, 0));
}

#[test]
fn plain_tcp_works() {
    let session = Session::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("fleetctl connects");
        let mut request = [0; 1024];
        let length = stream.read(&mut request).expect("a request");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(answer.as_bytes()).expect("answered");
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let command = format!("fleetctl --endpoint=http://{address},http://127.0.0.1:1 list-machines");
    let output = session.run(&command);
    assert!(
        output.ends_with(&format!(
            "o| MACHINE\tIP\tMETADATA\ne| WARNING: multiple endpoints provided but only the first (http://{address}) is used\n[rc=0]\n"
        )),
        "{output}"
    );
    let request = server.join().expect("the server ended");
    assert!(request.starts_with(&format!(
        "GET /fleet/v1/machines?limit=10000 HTTP/1.1\r\nhost: {address}\r\n"
    )));
}

#[test]
fn empty_environment_variable_counts_as_unset() {
    let session = Session::start();
    let name = |flag: &str| flag.to_uppercase().replace('-', "_");
    for flag in [
        "driver",
        "request-timeout",
        "tunnel",
        "ssh-timeout",
        "strict-host-key-checking",
    ] {
        let output = session
            .command("fleetctl list-machines")
            .env(format!("FLEETCTL_{}", name(flag)), "")
            .output()
            .expect("sh runs");
        assert!(output.status.success(), "{flag}: {output:?}");
    }
}

#[test]
fn command_without_fleetd_ignores_a_bad_environment() {
    let session = Session::start();
    for (command, code) in [("version", 0), ("verify hello", 2), ("completion bash", 0)] {
        let output = session
            .command(&format!("fleetctl {command}"))
            .env("FLEETCTL_ENDPOINT", "nowhere")
            .output()
            .expect("sh runs");
        assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
    }
}

#[test]
fn every_command_suggests_a_similar_unit() {
    let session = Session::start();
    session.run("fleetctl submit hello");
    for command in [
        "cat",
        "status",
        "wait",
        "journal",
        "ssh",
        "ssh --unit",
        "stop",
        "destroy",
        "start",
    ] {
        let said = session.run(&format!("fleetctl {command} helo"));
        assert!(said.contains("id you mean hello.service?"), "{said}");
    }
}

#[test]
fn early_error_says_that_no_unit_was_touched() {
    let session = Session::start();
    session.run("fleetctl start hello; fleetctl submit meta");
    insta::assert_snapshot!(session.run("fleetctl stop hello meta"), @r"
    $ fleetctl stop hello meta
    e| Unable to stop unit meta.service in state inactive
    e| stopped: none; not stopped: hello.service, meta.service
    [rc=1]
    ");
}
