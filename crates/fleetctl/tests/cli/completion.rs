//! The candidates that Tab offers, in the shells themselves.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crate::session::Session;

/// Returns the candidates for the last of these words, without descriptions.
fn offered(session: &Session, words: &str) -> Vec<String> {
    let command = format!("exec timeout 60 fleetctl __complete -- fleetctl {words}");
    let output = session.command(&command).output().expect("sh runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let value = |line: &str| line.split('\t').next().map(str::to_owned);
    text.lines().filter_map(value).collect()
}

/// Types a line, Tab and Enter on a terminal of that shell. Returns the words that fleetctl is run
/// with.
fn tab(session: &Session, shell: &str, start: &str, line: &str) -> Option<Vec<String>> {
    let command = format!("TERM=dumb HOME=$PWD exec timeout 60 script -qec '{start}' /dev/null");
    let mut terminal = session
        .command(&command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let mut keyboard = terminal.stdin.take().expect("piped");
    write!(keyboard, "{line}\t\nexit\n").expect("typed");
    let output = terminal.wait_with_output().expect("it ends");
    drop(keyboard);
    let shown = String::from_utf8_lossy(&output.stdout);
    // Skip the typed line, which the terminal shows too.
    let Some((_, words)) = shown.rsplit_once("ran<") else {
        panic!("{shell} ran no fleetctl: {shown}");
    };
    let (words, _) = words.split_once(">ran").expect("all of it");
    Some(words.split("><").map(str::to_owned).collect())
}

fn installed(session: &Session, shell: &str) -> bool {
    let look = format!("command -v {shell}");
    let there = session
        .command(&look)
        .output()
        .expect("sh runs")
        .status
        .success();
    if !there {
        println!("skipped: {shell} is not installed (apt-get install {shell})");
    }
    there
}

/// A replacement for fleetctl that prints its words. The completion scripts still call the real
/// one.
const ECHO: &str = "fleetctl() { printf ran; printf '<%s>' \"$@\"; echo ran; }\n";

fn bash(session: &Session, line: &str) -> Vec<String> {
    let rc = format!(
        "PS1='$ '; bind 'set enable-bracketed-paste off'; source <(command fleetctl completion bash)\n{ECHO}"
    );
    std::fs::write(session.path("bashrc"), rc).expect("written");
    tab(session, "bash", "bash --rcfile bashrc -i", line).expect("it ran")
}

#[test]
fn units_are_completed_from_the_registry() {
    let session = Session::start();
    session.run("fleetctl submit hello meta tmpl@blue");
    for command in [
        "stop",
        "restart",
        "unload",
        "destroy",
        "cat",
        "status",
        "wait",
        "rollout status",
        "rollout undo --to 3",
        "explain",
        "events",
    ] {
        let units = offered(&session, &format!("{command} ''"));
        let all = ["hello.service", "meta.service", "tmpl@blue.service"];
        assert_eq!(units, all, "{command}");
    }
    assert_eq!(
        offered(&session, "stop --no-block hello m"),
        ["meta.service"]
    );
}

#[test]
fn start_is_completed_from_units_and_files() {
    let session = Session::start();
    session.run("fleetctl submit hello");
    std::fs::create_dir(session.path("hosts")).expect("made");
    std::fs::write(session.path("hosts.txt"), "").expect("written");
    assert_eq!(offered(&session, "start h"), ["hello.service", "hosts/"]);
    assert_eq!(offered(&session, "plan h"), ["hello.service", "hosts/"]);
    assert_eq!(offered(&session, "submit ./me"), ["./meta.service"]);
}

#[test]
fn machines_are_offered_by_their_whole_id() {
    let session = Session::start();
    let machines = session.run("fleetctl list-machines -o name");
    for place in [
        "metadata",
        "ssh",
        "ssh --machine",
        "cordon",
        "drain --wait",
        "explain -m",
    ] {
        let offered = offered(&session, &format!("{place} ''"));
        assert!(!offered.is_empty(), "{place}");
        for id in offered {
            assert!(machines.contains(&format!("o| {id}\n")), "{id}: {machines}");
        }
    }
}

#[test]
fn list_of_columns_is_completed_at_its_end() {
    let session = Session::start();
    assert_eq!(
        offered(&session, "list-units --fields=un"),
        ["--fields=unit"]
    );
    assert_eq!(
        offered(&session, "list-machines --fields machine,"),
        [
            "machine,ip",
            "machine,metadata",
            "machine,status",
            "machine,version"
        ]
    );
}

#[test]
fn flags_are_completed_after_a_dash() {
    let session = Session::start();
    assert!(offered(&session, "list-units ''").is_empty());
    for dash in ["-", "--"] {
        let flags = offered(&session, &format!("list-units {dash}"));
        assert!(flags.contains(&"--fields".to_owned()), "{flags:?}");
        // Completion does not offer a flag of fleet 1.0 that does nothing.
        assert!(!flags.contains(&"--driver".to_owned()), "{flags:?}");
    }
}

#[test]
fn completion_asks_the_fleetd_named_on_the_line() {
    let session = Session::start();
    session.run("fleetctl submit hello");
    let endpoint = session.fleetd.endpoint();
    for line in [
        format!("--endpoint {endpoint} cat ''"),
        format!("cat --endpoint={endpoint} ''"),
    ] {
        let command =
            format!("FLEETCTL_ENDPOINT=unix:///nowhere fleetctl __complete -- fleetctl {line}");
        let shown = session.run(&command);
        assert!(shown.contains("hello.service"), "{shown}");
    }
}

#[test]
fn completion_does_not_wait_for_a_silent_fleetd() {
    let session = Session::start();
    let silent = session.path("silent.sock");
    let _listener = UnixListener::bind(&silent).expect("free");
    for endpoint in [&*silent.display().to_string(), "/nowhere"] {
        // An ordinary request would wait for ten minutes.
        let waiting = format!("--request-timeout 600 --endpoint unix://{endpoint} stop ''");
        assert!(offered(&session, &waiting).is_empty());
        let quiet = session.run(&format!("fleetctl __complete -- fleetctl {waiting}"));
        assert!(!quiet.contains("e|"), "{quiet}");
    }
}

#[test]
fn completion_never_uses_a_tunnel() {
    let session = Session::start();
    // A replacement for ssh that records a call.
    session.run("printf '#!/bin/sh\ntouch called\n' > ssh; chmod 755 ssh");
    let words = "--tunnel n1 --endpoint unix:///run/fleet.sock stop ''";
    let shown = session.run(&format!(
        "PATH=$PWD:$PATH fleetctl __complete -- fleetctl {words}"
    ));
    assert!(!shown.contains("o|"), "{shown}");
    assert!(!session.path("called").exists());
}

#[test]
fn bash_completes_words_that_it_would_cut() {
    let session = Session::start();
    session.run(
        "cp hello.service 'dev-a\\x2db@c.service'; fleetctl submit hello tmpl@blue 'dev-a\\x2db@c'",
    );
    std::fs::create_dir(session.path("one two")).expect("made");
    for (typed, run) in [
        ("fleetctl li", &["list-"][..]),
        (
            "fleetctl list-units --fields=unit,ma",
            &["list-units", "--fields=unit,machine"],
        ),
        ("fleetctl stop hel", &["stop", "hello.service"]),
        ("fleetctl stop tmpl@b", &["stop", "tmpl@blue.service"]),
        ("fleetctl stop 'tmpl@b", &["stop", "tmpl@blue.service"]),
        (
            "fleetctl stop dev-a\\\\x2",
            &["stop", "dev-a\\x2db@c.service"],
        ),
        (
            "fleetctl stop dev-a\\\\x2db@",
            &["stop", "dev-a\\x2db@c.service"],
        ),
        ("fleetctl load one", &["load", "one two/"]),
        ("fleetctl wait --for=g", &["wait", "--for=gone"]),
        (
            "true; FLEETCTL_DEBUG=1 fleetctl stop tmpl@b",
            &["stop", "tmpl@blue.service"],
        ),
    ] {
        assert_eq!(bash(&session, typed), run, "{typed}");
    }
}

#[test]
fn bash_registers_the_script_for_fleetctl() {
    let session = Session::start();
    let shown = session.run("bash -c 'source <(fleetctl completion bash); complete -p fleetctl'");
    assert!(shown.contains("-F _fleetctl fleetctl"), "{shown}");
}

#[test]
fn zsh_completes_units() {
    let session = Session::start();
    if !installed(&session, "zsh") {
        return;
    }
    session.run("fleetctl submit hello tmpl@blue");
    let rc = format!(
        "PS1='$ '; autoload -U compinit; compinit -u -D; source <(command fleetctl completion zsh)\n{ECHO}"
    );
    std::fs::write(session.path(".zshrc"), rc).expect("written");
    for (typed, run) in [
        ("fleetctl stop tmpl@b", &["stop", "tmpl@blue.service"][..]),
        (
            "fleetctl list-units --fields=unit,ma",
            &["list-units", "--fields=unit,machine"],
        ),
    ] {
        assert_eq!(
            tab(&session, "zsh", "zsh -i", typed).as_deref(),
            Some(&run.iter().map(|&w| w.to_owned()).collect::<Vec<_>>()[..]),
            "{typed}"
        );
    }
}

#[test]
fn fish_completes_units_with_descriptions() {
    let session = Session::start();
    if !installed(&session, "fish") {
        return;
    }
    session.run("fleetctl submit hello tmpl@blue");
    let shown = session.run(
        "HOME=$PWD fish -c 'fleetctl completion fish | source; complete -C \"fleetctl stop tmpl@b\"; complete -C \"fleetctl stop \"; complete -C \"fleetctl list-units --fields=unit,ma\"'",
    );
    for line in [
        "o| tmpl@blue.service",
        "o| hello.service",
        "--fields=unit,machine",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}
