//! Shows what Tab completes on a host: units and machines of the whole fleet, and nothing while
//! fleetd is silent.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::sleeper;

/// The completion as a package installs it. The function replaces fleetctl and prints its words.
/// The script calls the real one.
const RC: &str = r#"PS1='$ '; bind 'set enable-bracketed-paste off'
source /usr/share/bash-completion/completions/fleetctl
fleetctl() { printf ran; printf '<%s>' "$@"; echo ran; }
"#;

#[test]
fn bash_on_a_host_completes_units_and_machines_of_the_fleet() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let (host, other) = (lab.host(1), lab.host(2));
        host.sh("mkdir -p /usr/share/bash-completion/completions; \
             fleetctl completion bash > /usr/share/bash-completion/completions/fleetctl")?
            .ok()?;
        host.write_file("/root/bashrc", RC)?;
        host.write_file("/root/web@.service", sleeper(1000))?;
        other.write_file("/root/hello.service", sleeper(1001))?;
        host.fleetctl(&["start", "--wait", "/root/web@blue.service"])?
            .ok()?;
        other
            .fleetctl(&["start", "--wait", "/root/hello.service"])?
            .ok()?;

        ensure!(tab(host, "stop hel")? == "stop><hello.service");
        ensure!(tab(host, "stop web@b")? == "stop><web@blue.service");
        let id = other.machine_id();
        let ours = host.machine_id();
        let typed = (1..id.len()).find(|&n| id[..n] != ours[..n]);
        let typed = &id[..typed.context("two machines have one id")?];
        ensure!(tab(host, &format!("metadata {typed}"))? == format!("metadata><{id}"));

        // fleetd keeps its socket, but does not answer.
        host.exec(&["systemctl", "kill", "--signal=STOP", "fleet.service"])?
            .ok()?;
        let silent = tab(host, "stop hel");
        host.exec(&["systemctl", "kill", "--signal=CONT", "fleet.service"])?
            .ok()?;
        ensure!(silent? == "stop><hel");
        Ok(())
    });
}

/// Types this after `fleetctl` on a terminal of the host, then Tab and Enter. Returns the words
/// that fleetctl is run with.
fn tab(host: &Host, typed: &str) -> Result<String> {
    let terminal = "timeout 60 script -qec 'bash --rcfile /root/bashrc -i' /dev/null";
    let shown = host
        .sh(&format!(
            "printf 'fleetctl {typed}\\t\\nexit\\n' | TERM=dumb {terminal}"
        ))?
        .stdout;
    let words = shown.rsplit_once("ran<").map(|(_, words)| words);
    let words = words.and_then(|words| words.split_once(">ran"));
    let (words, _) = words.with_context(|| format!("fleetctl was not run: {shown}"))?;
    Ok(words.to_owned())
}
