//! Shows that the journals of several hosts are read as one.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Output};

use super::{fleetctl, on_three_hosts};
use crate::support::looking::{SOON, refused};

/// A service that runs the commands it gets through a pipe, such as to log something.
const TALKER: &str = r#"[Service]
ExecStartPre=/usr/bin/mkfifo /run/talk
ExecStart=/bin/sh -c 'while true; do while IFS= read -r line; do eval "$$line"; done < /run/talk; done'
SyslogIdentifier=talk

[X-Fleet]
Global=true
"#;

#[test]
fn the_journals_of_all_hosts_are_read_as_one() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        one.write_file("/root/talk.service", TALKER)?;
        fleetctl(one, "start --wait talk.service")?.ok()?;
        one.exec(&["systemctl", "stop", "ssh.service"])?.ok()?;
        for (number, word) in [(3, "a"), (1, "b"), (2, "c"), (1, "d"), (3, "e")] {
            say(
                lab,
                number,
                &format!("echo line-{word}"),
                &format!("line-{word}"),
            )?;
        }
        merged(lab).context("merged")?;
        chosen(lab).context("chosen")?;
        odd_messages(lab).context("odd messages")?;
        status(one).context("status")?;
        permissions(lab).context("permissions")?;
        followed(lab).context("followed")?;
        unreachable(lab).context("unreachable")
    });
}

/// Makes the unit of a host run a command, and waits until its journal has this text.
fn say(lab: &Lab, number: usize, command: &str, said: &str) -> Result<()> {
    let host = lab.host(number);
    host.write_file("/run/command", format!("{command}\n"))?;
    host.sh("cat /run/command > /run/talk")?.ok()?;
    lab.wait_until(SOON, &format!("{} has said {said}", host.name()), || {
        let log = host.exec(&["journalctl", "--unit=talk.service", "--output=cat", "--all"])?;
        Ok(log.ok()?.contains(said))
    })
}

/// Returns the lines that the unit was told to log, in the order shown.
fn told(output: Output) -> Result<Vec<String>> {
    let shown = output.ok()?;
    let told = shown.lines().filter(|line| line.contains("line-"));
    Ok(told.map(str::to_owned).collect())
}

fn merged(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let lines = told(fleetctl(one, "journal --lines=all talk.service")?)?;
    let expected = [
        ("d77c07da.../10.99.1.3 ", ": line-a"),
        ("190c6f8f.../10.99.1.1 ", ": line-b"),
        ("c46a8ace.../10.99.1.2 ", ": line-c"),
        ("190c6f8f.../10.99.1.1 ", ": line-d"),
        ("d77c07da.../10.99.1.3 ", ": line-e"),
    ];
    let as_expected = lines.iter().zip(expected).all(|(line, (machine, end))| {
        line.starts_with(machine) && line.contains("Z talk[") && line.ends_with(end)
    });
    ensure!(lines.len() == expected.len() && as_expected, "{lines:#?}");
    let tunnelled = told(fleetctl(
        one,
        "--tunnel=10.99.1.2 journal --lines=all talk.service",
    )?)?;
    ensure!(tunnelled == lines, "{tunnelled:#?}");
    let cat = fleetctl(one, "journal -n 2 -o cat talk")?.ok()?;
    ensure!(cat == "line-d\nline-e\n", "{cat}");
    Ok(())
}

fn chosen(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let cat = |flags: &str| fleetctl(one, &format!("journal -o cat {flags} talk.service"))?.ok();
    ensure!(cat("--machine=d77c -n2")? == "line-a\nline-e\n");
    ensure!(cat("--machine=190c -n1")? == "line-d\n");
    ensure!(cat("-n0")?.is_empty());
    ensure!(cat("--since=-1h")?.ends_with("line-a\nline-b\nline-c\nline-d\nline-e\n"));
    ensure!(cat("--since=tomorrow")?.is_empty());
    ensure!(cat("--until=yesterday")?.is_empty());
    let json = fleetctl(one, "journal -n 3 -o json talk.service")?.ok()?;
    for (line, host, message) in json
        .lines()
        .zip([("n2", "line-c"), ("n1", "line-d"), ("n3", "line-e")])
        .map(|(a, (b, c))| (a, b, c))
    {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        ensure!(
            entry["_HOSTNAME"] == host && entry["MESSAGE"] == message,
            "{line}"
        );
    }
    ensure!(json.lines().count() == 3, "{json}");
    refused(
        &fleetctl(one, "journal nosuch")?,
        1,
        "Unit nosuch.service does not exist.",
    )?;
    refused(
        &fleetctl(one, "journal")?,
        1,
        "One unit file must be provided.",
    )?;
    refused(
        &fleetctl(one, "journal --since=nonsense talk")?,
        1,
        "Failed to parse timestamp: nonsense",
    )
}

fn odd_messages(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    say(lab, 2, r"printf 'caf\351 \033[2Jred line-f\n'", "line-f")?;
    let odd = fleetctl(one, "journal -n1 -o cat talk")?.ok()?;
    ensure!(odd == "caf\u{fffd}  [2Jred line-f\n", "{odd:?}");
    // logger has no unit of its own, and root may name any unit.
    let logger = r"printf 'OBJECT_SYSTEMD_UNIT=talk.service\nMESSAGE=first\nMESSAGE=line-g\n' | logger --journald";
    lab.host(3).sh(logger)?.ok()?;
    lab.wait_until(SOON, "both lines are shown", || {
        let lines = fleetctl(one, "journal -n1 talk")?.ok()?;
        let lines: Vec<&str> = lines.lines().collect();
        Ok(matches!(lines[..], [first, second]
            if first.ends_with(": first") && second.starts_with("d77c07da.../10.99.1.3   ") && second.ends_with(" line-g")))
    })?;
    let long = "x".repeat(40_000);
    say(lab, 3, &format!("echo {long} line-h"), "line-h")?;
    let shown = fleetctl(one, "journal -n1 -o cat talk")?.ok()?;
    ensure!(shown == format!("{long} line-h\n"), "{} bytes", shown.len());
    Ok(())
}

fn status(one: &Host) -> Result<()> {
    let here = fleetctl(one, "status talk")?.ok()?;
    let logs: Vec<&str> = here.lines().filter(|line| line.contains("line-")).collect();
    ensure!(logs.len() == 2 && logs[1].ends_with(": line-d"), "{here}");
    let everywhere = fleetctl(one, "status -n 1 talk")?.ok()?;
    let logs = everywhere
        .lines()
        .filter_map(|line| Some(line.rsplit_once(' ')?.1));
    let logs: Vec<&str> = logs.filter(|word| word.starts_with("line-")).collect();
    ensure!(logs == ["line-d", "line-f", "line-h"], "{everywhere}");
    let none = fleetctl(one, "status -n 0 talk")?.ok()?;
    ensure!(!none.contains("line-"), "{none}");
    Ok(())
}

fn permissions(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        host.sh("useradd --create-home --shell /bin/bash eve && cp -r /home/core/.ssh /home/eve/ && echo 'eve ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/eve")?
            .ok()?;
    }
    let one = lab.host(1);
    let eve = fleetctl(
        one,
        "--ssh-username=eve journal -n 1 -o cat --machine c46a talk",
    )?;
    ensure!(eve.code == 1 && eve.stdout.is_empty(), "{eve:?}");
    ensure!(eve.stderr.contains("or use --sudo"), "{eve:?}");
    let sudo = fleetctl(
        one,
        "--ssh-username=eve journal -n 2 -o cat --sudo --machine c46a talk",
    )?;
    ensure!(sudo.ok()?.contains("line-f"));
    Ok(())
}

fn followed(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    let follow = "cd /root; fleetctl journal -f -n 1 -o cat talk > followed 2> remarks & echo $!";
    let pid = one.sh(follow)?.ok()?;
    let shows = |file: &str, text: &str| {
        lab.wait_until(SOON, &format!("{file} has {text}"), || {
            Ok(one.read_file(&format!("/root/{file}"))?.contains(text))
        })
    };
    shows("followed", "line-h\n")?;
    for (number, word) in [(1, "i"), (2, "j"), (3, "k"), (1, "l")] {
        say(
            lab,
            number,
            &format!("echo line-{word}"),
            &format!("line-{word}"),
        )?;
        shows("followed", &format!("line-{word}\n"))?;
    }
    let followed = one.read_file("/root/followed")?;
    ensure!(
        followed.ends_with(" line-h\nline-i\nline-j\nline-k\nline-l\n"),
        "{}",
        followed.len()
    );
    ensure!(
        followed.lines().count() == 5,
        "only one line was asked for of what was before"
    );
    // The end of a journalctl on another host is reported, and the others continue.
    lab.host(2)
        .sh("kill $(grep -lx journalctl /proc/[0-9]*/comm | cut -d/ -f3)")?
        .ok()?;
    shows("remarks", "c46a8ace.../10.99.1.2: lost the journal: ")?;
    say(lab, 3, "echo line-m", "line-m")?;
    shows("followed", "line-m\n")?;
    one.sh(&format!("kill {pid}"))?.ok()?;
    lab.wait_until(SOON, "neither fleetctl nor its ssh is left", || {
        let left = one.sh("grep -lxE 'fleetctl|ssh|journalctl' /proc/[0-9]*/comm")?;
        Ok(left.stdout.is_empty())
    })?;
    // A reader that closes ends it too, even if nothing more is logged.
    let left = one.sh("timeout 20 sh -c 'fleetctl journal -f -n 1 -o cat talk | head -1'")?;
    ensure!(left.ok()? == "line-m\n");
    Ok(())
}

fn unreachable(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    for elsewhere in [
        "journal --ssh-port=2222",
        "status --lines=1 --ssh-port=2222",
    ] {
        let told = fleetctl(one, &format!("{elsewhere} talk"))?.stderr;
        for address in ["10.99.1.2", "10.99.1.3"] {
            let refused = format!("connect to host {address} port 2222: Connection refused");
            ensure!(told.contains(&refused), "{elsewhere}: {told}");
        }
    }
    lab.host(3).partition()?;
    let two_of_three = fleetctl(one, "--ssh-timeout=1 journal -n 2 -o cat talk");
    lab.host(3).heal()?;
    let two_of_three = two_of_three?;
    refused(
        &two_of_three,
        1,
        "d77c07da.../10.99.1.3: cannot read the journal: ssh: connect to host 10.99.1.3 port 22: ",
    )?;
    ensure!(
        two_of_three.stdout == "line-j\nline-l\n",
        "{two_of_three:?}"
    );
    Ok(())
}
