//! Shows that a host with an unknown key is refused, unless the user allows it.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use super::{fleetctl, on_three_hosts};
use crate::support::looking::{SOON, refused};

#[test]
fn a_host_whose_key_is_not_known_is_refused() {
    on_three_hosts(|lab| {
        let (one, two) = (lab.host(1), lab.host(2));
        unknown(one).context("an unknown key")?;
        asked_about(lab).context("a key that the person accepts")?;
        two.renew_host_key()?;
        two.exec(&["systemctl", "restart", "ssh.service"])?.ok()?;
        changed(one).context("a changed key")
    });
}

/// The ways to the second host by ssh: directly, as a tunnel, and as the first hop of two.
const WAYS: &[&str] = &[
    "ssh c46a true",
    "--tunnel=10.99.1.2 list-machines",
    "--endpoint=unix:///run/fleet.sock --tunnel=10.99.1.2 ssh d77c true",
];

fn unknown(one: &Host) -> Result<()> {
    for way in WAYS {
        let asked = fleetctl(one, &format!("--known-hosts-file=/root/fresh {way}"))?;
        ensure!(asked.code != 0, "{asked:?}");
        ensure!(
            asked.stderr.contains("host key is known for 10.99.1.2"),
            "{asked:?}"
        );
        ensure!(asked.stderr.contains("/root/fresh"), "{asked:?}");
        ensure!(!one.path("/root/fresh").exists(), "{way} has made a file");
        let unchecked =
            format!("--strict-host-key-checking=false --known-hosts-file=/root/fresh {way}");
        let unchecked = fleetctl(one, &unchecked)?;
        ensure!(
            (unchecked.code, &*unchecked.stderr) == (0, ""),
            "{unchecked:?}"
        );
        let environment =
            "FLEETCTL_STRICT_HOST_KEY_CHECKING=false FLEETCTL_KNOWN_HOSTS_FILE=/root/fresh";
        one.sh(&format!("{environment} fleetctl {way}"))?.ok()?;
    }
    let told = fleetctl(
        one,
        "--known-hosts-file=/root/fresh --tunnel=10.99.1.2 list-machines",
    )?;
    refused(
        &told,
        1,
        "its host key is not in /root/fresh: --strict-host-key-checking=ask, at a terminal, shows it and adds it",
    )
}

fn asked_about(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    // ssh asks on the terminal, which `script` provides. Its input is a pipe that stays open.
    let ask = "fleetctl --strict-host-key-checking=ask --known-hosts-file=/root/new/known --tunnel=10.99.1.2 list-machines";
    one.write_file(
        "/root/ask",
        format!("script --quiet --flush --command '{ask}' /root/asked"),
    )?;
    one.sh("mkfifo /root/answer && (exec 3<> /root/answer; sh /root/ask <&3 > /dev/null 2>&1 &)")?
        .ok()?;
    let shows = |text: &str| {
        lab.wait_until(SOON, &format!("the terminal shows {text}"), || {
            Ok(one.read_file("/root/asked")?.contains(text))
        })
    };
    shows("ED25519 key fingerprint is SHA256:")?;
    shows("(yes/no")?;
    one.sh("echo yes > /root/answer")?.ok()?;
    shows("10.99.1.3")?;
    let known = fleetctl(
        one,
        "--known-hosts-file=/root/new/known --tunnel=10.99.1.2 list-machines",
    )?;
    known.ok().map(drop)
}

fn changed(one: &Host) -> Result<()> {
    for way in WAYS {
        let asked = fleetctl(one, way)?;
        ensure!(asked.code != 0, "{asked:?}");
        ensure!(
            asked
                .stderr
                .contains("REMOTE HOST IDENTIFICATION HAS CHANGED"),
            "{asked:?}"
        );
        let unchecked = fleetctl(one, &format!("--strict-host-key-checking=false {way}"))?;
        unchecked.ok()?;
    }
    let told = fleetctl(one, "--tunnel=10.99.1.2 list-machines")?;
    refused(
        &told,
        1,
        "the host key is not the one in /root/.fleetctl/known_hosts. If the machine was reinstalled",
    )
}
