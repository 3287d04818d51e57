//! Endpoints where no fleetd responds as it should. Each is reported with the next step, and
//! fleetctl never hangs.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use crate::session::Session;

/// The timeout for servers that hang. Others get longer than anything takes on a busy machine.
const SHORT: &str = "0.5";
const LONG: &str = "20";

/// Runs `fleetctl list-machines` against a server that reads a request and then does `answer`.
fn against(timeout: &str, answer: impl FnOnce(&mut dyn io::Write) + Send + 'static) -> String {
    let session = Session::start();
    let listener = UnixListener::bind(session.path("bad.sock")).expect("bound");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("fleetctl connects");
        let _ = stream.read(&mut [0; 4096]).expect("a request");
        answer(&mut stream);
    });
    session.run_at("bad.sock", timeout, "list-machines")
}

fn answering(text: &'static str) -> String {
    against(LONG, move |stream| {
        stream.write_all(text.as_bytes()).expect("written")
    })
}

impl Session {
    /// Runs a command with a socket in the session's folder, which the transcript calls SOCKET.
    fn run_at(&self, socket: &str, timeout: &str, command: &str) -> String {
        let endpoint = format!("unix://{}", self.path(socket).display());
        let command =
            format!("fleetctl --request-timeout={timeout} --endpoint={endpoint} {command}");
        self.run(&command).replace(&endpoint, "SOCKET")
    }
}

#[test]
fn hanging_server_times_out() {
    insta::assert_snapshot!(against(SHORT, |_| thread::sleep(Duration::from_secs(60))), @r"
    $ fleetctl --request-timeout=0.5 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: fleetd at SOCKET did not answer within 500ms: its registry may be unreachable (`systemctl status fleet` there shows it); --request-timeout sets how long to wait
    [rc=1]
    ");
}

#[test]
fn server_that_hangs_in_its_answer_times_out() {
    let answer = against(SHORT, |stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
            .expect("written");
        thread::sleep(Duration::from_secs(60));
    });
    insta::assert_snapshot!(answer, @r"
    $ fleetctl --request-timeout=0.5 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: fleetd at SOCKET did not answer within 500ms: its registry may be unreachable (`systemctl status fleet` there shows it); --request-timeout sets how long to wait
    [rc=1]
    ");
}

#[test]
fn closed_connection_is_reported() {
    insta::assert_snapshot!(answering(""), @r"
    $ fleetctl --request-timeout=20 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: lost the connection to fleetd at SOCKET: connection closed before message completed; ask again
    [rc=1]
    ");
}

#[test]
fn truncated_answer_is_reported() {
    insta::assert_snapshot!(answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), @r"
    $ fleetctl --request-timeout=20 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: lost the connection to fleetd at SOCKET: error reading a body from connection; ask again
    [rc=1]
    ");
}

#[test]
fn endless_answer_is_refused() {
    let answer = against(LONG, |stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n";
        stream.write_all(head).expect("written");
        // Ends when fleetctl closes the connection.
        while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
    });
    insta::assert_snapshot!(answer, @r"
    $ fleetctl --request-timeout=20 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: the answer of SOCKET is longer than 64 MiB, which fleetd never sends: does fleetd listen there? --endpoint names another address
    [rc=1]
    ");
}

#[test]
fn malformed_json_is_refused() {
    insta::assert_snapshot!(answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[}"), @r"
    $ fleetctl --request-timeout=20 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: cannot read the answer of SOCKET to machines?limit=10000: expected value at line 1 column 2; does fleetd listen there? --endpoint names another address
    [rc=1]
    ");
}

#[test]
fn other_server_is_recognised() {
    for page in [
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>",
        "SSH-2.0-OpenSSH_9.2p1\r\n",
    ] {
        let told = answering(page);
        assert!(
            told.contains("does fleetd listen there? --endpoint names another address"),
            "{told}"
        );
        assert!(told.ends_with("[rc=1]\n"), "{told}");
    }
}

#[test]
fn fleetd_of_another_major_version_is_refused() {
    let answer = "HTTP/1.1 200 OK\r\nServer: fleetd/v99.1.0\r\nContent-Length: 2\r\n\r\n{}";
    insta::assert_snapshot!(answering(answer), @r"
    $ fleetctl --request-timeout=20 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: SOCKET is fleetd v99.1.0, and this fleetctl is v0.1.0: use the fleetctl of that version
    [rc=1]
    ");
}

#[test]
fn missing_socket_names_the_next_step() {
    insta::assert_snapshot!(Session::start().run_at("none.sock", LONG, "list-machines"), @r"
    $ fleetctl --request-timeout=20 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: cannot reach fleetd at SOCKET: No such file or directory. Is fleetd running here? (systemctl status fleet.socket fleet.service)
    [rc=1]
    ");
}

#[test]
fn unused_socket_names_the_next_step() {
    let session = Session::start();
    drop(UnixListener::bind(session.path("left.sock")).expect("bound"));
    insta::assert_snapshot!(session.run_at("left.sock", LONG, "list-machines"), @r"
    $ fleetctl --request-timeout=20 --endpoint=SOCKET list-machines
    e| Error retrieving list of active machines from fleet API: cannot reach fleetd at SOCKET: Connection refused. Is fleetd running here? (systemctl status fleet.socket fleet.service)
    [rc=1]
    ");
}

#[test]
fn socket_of_a_group_names_the_group() {
    let session = Session::start();
    let socket = session.path("fleet.sock");
    let endpoint = session.fleetd.endpoint();
    let copy = session.path("fleetctl");
    fs::copy(env!("CARGO_BIN_EXE_fleetctl"), &copy).expect("copied");
    for (path, mode) in [(&session.path("."), 0o755), (&socket, 0o660)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("allowed");
    }
    let Ok(chgrp) = session.command("chgrp daemon fleet.sock").status() else {
        return;
    };
    if !chgrp.success() {
        println!("skipped: only root may give a socket to a group");
        return;
    }
    let told = session.run(&format!(
        "setpriv --reuid=nobody --regid=nogroup --clear-groups {} --endpoint={endpoint} list-machines",
        copy.display()
    ));
    assert!(
        told.contains("Permission denied. Only root and the group daemon may connect: try sudo, or join it (usermod --append --groups daemon USER)"),
        "{told}"
    );
}

#[test]
fn batch_ends_at_once_when_fleetd_is_unreachable() {
    let session = Session::start();
    session.run("fleetctl submit hello meta");
    session.run("for n in $(seq 40); do cp hello.service u$n.service; done");
    let told = session.run_at("none.sock", LONG, "submit $(seq -f u%.0f 40)");
    assert_eq!(told.matches("cannot reach fleetd").count(), 1, "{told}");
}

#[test]
fn batch_ends_when_the_registry_is_unreachable() {
    let session = Session::start();
    session.run("for n in $(seq 120); do cp hello.service u$n.service; done");
    session.run("fleetctl submit u*.service");
    session.fleetd.change(|world| world.away = "DELETE");
    let told = session.run("fleetctl destroy 'u*'");
    assert_eq!(told.matches("registry unavailable").count(), 1, "{told}");
    assert!(
        told.contains("\ne| destroyed: none; not destroyed: u1.service, u10.service"),
        "{told}"
    );
    session
        .fleetd
        .change(|world| assert!(world.unanswered < 60, "{}", world.unanswered));
}
