//! `--watch`: what is printed again, what is not, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::session::Session;

/// A limit longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

struct Watched {
    process: Child,
    lines: Receiver<String>,
}

impl Watched {
    fn start(session: &Session, arguments: &str) -> Self {
        let mut process = session
            .command(&format!("exec fleetctl {arguments}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (told, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(SOON).expect("another line")
    }

    /// Waits until the process ends by itself. Returns its exit status.
    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.process.try_wait().expect("asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends Ctrl-C. Returns the exit code and the text on stderr.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let id = self.process.id().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args(["-INT", &id]).status().expect("kill").success());
        let mut said = String::new();
        let mut stderr = self.process.stderr.take().expect("piped");
        stderr.read_to_string(&mut said).expect("text");
        (self.process.wait().expect("it ends").signal(), said)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn listing_is_printed_again_when_it_has_changed() {
    let session = Session::start();
    session.run("fleetctl load hello");
    let watched = Watched::start(&session, "list-units -w --no-legend --fields=unit,active");
    let loaded = "hello.service\tinactive";
    assert_eq!(
        [watched.next(), watched.next(), watched.next()],
        [loaded; 3]
    );
    // Two reads that find nothing new.
    assert!(
        watched
            .lines
            .recv_timeout(Duration::from_millis(2500))
            .is_err()
    );
    session.run("fleetctl start hello");
    let active = "hello.service\tactive";
    assert_eq!(
        [watched.next(), watched.next(), watched.next()],
        [active; 3]
    );
    assert_eq!(watched.interrupt(), (Some(2), String::new()));
}

#[test]
fn status_is_printed_again_when_it_has_changed() {
    let session = Session::start();
    session.run("fleetctl start hello");
    let watched = Watched::start(&session, "status --watch hello");
    let until = |end: &str| {
        while !watched.next().contains(end) {}
    };
    until("6650bd8a.../10.99.1.2  active (running)");
    session
        .fleetd
        .change(|world| world.fail("hello.service", "6650"));
    until("6650bd8a.../10.99.1.2  failed (failed), result exit-code");
    assert_eq!(watched.interrupt(), (Some(2), String::new()));
}

#[test]
fn consecutive_documents_are_separated() {
    let session = Session::start();
    let watched = Watched::start(&session, "status -w -o yaml");
    let mut first = Vec::new();
    for _ in 0..10 {
        first.push(watched.next());
    }
    assert_eq!(first[0], "---", "{first:?}");
    session.run("fleetctl submit hello");
    assert_eq!(watched.next(), "---");
}

#[test]
fn watching_continues_while_the_registry_is_unreachable() {
    let session = Session::start();
    let watched = Watched::start(&session, "list-unit-files -w -o name");
    session.run("fleetctl submit hello");
    assert_eq!(watched.next(), "hello.service");
    session.fleetd.change(|world| world.away = "GET");
    thread::sleep(Duration::from_millis(2500));
    session.fleetd.change(|world| world.away = "");
    session.run("fleetctl submit meta");
    while watched.next() != "meta.service" {}
    let (signal, said) = watched.interrupt();
    assert_eq!(signal, Some(2));
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
}

#[test]
fn closed_stdout_ends_watching_without_changes() {
    let session = Session::start();
    session.run("fleetctl submit hello");
    for shown in ["list-unit-files -w -o name", "status -w hello"] {
        let mut watched = Watched::start(&session, &format!("{shown} | head -1"));
        assert!(watched.next().starts_with("hello.service"), "{shown}");
        assert!(watched.ended().success(), "{shown}");
    }
}

#[test]
fn terminal_is_redrawn_in_place() {
    let session = Session::start();
    session.run("fleetctl submit hello");
    let terminal = "script -qec 'timeout -s INT 1 fleetctl list-unit-files -w -o name' /dev/null";
    let shown = session.run(&format!("TERM=xterm {terminal}"));
    assert!(shown.contains("\x1b[H\x1b[Jhello.service"), "{shown:?}");
}
