//! Shows that a fleetd that cannot work reports the reason in one line, and that no unit is
//! affected.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{SOON, refused, runs_everywhere, sleeper};

const CONF: &str = "/etc/fleet/fleet.conf";

#[test]
fn a_fleetd_that_cannot_work_says_why_and_units_run_on() {
    Lab::builder().etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        let host = lab.host(1);
        host.write_file("/etc/fleet/units/a.service", sleeper(1000))?;
        runs_everywhere(lab, "a.service", 1000)?;
        let pid = host.main_pid("a.service")?;
        unusable_configuration(lab).context("a configuration that cannot be used")?;
        no_machine_id(lab).context("no /etc/machine-id")?;
        second_fleetd(host).context("a second fleetd")?;
        nobody_listens(host).context("no socket")?;
        no_registry(lab).context("no etcd")?;
        ensure!(host.main_pid("a.service")? == pid, "a.service was touched");
        Ok(())
    });
}

fn restart(host: &Host) -> Result<lab::Output> {
    host.exec(&["systemctl", "restart", "fleet.service"])
}

fn since_then(host: &Host, cursor: &str) -> Result<String> {
    host.exec(&[
        "journalctl",
        "--no-pager",
        "--unit=fleet.service",
        &format!("--after-cursor={cursor}"),
    ])?
    .ok()
}

/// Returns a place in the journal. Later lines are new.
fn cursor(host: &Host) -> Result<String> {
    let shown = host
        .exec(&["journalctl", "--no-pager", "--lines=0", "--show-cursor"])?
        .ok()?;
    let (_, cursor) = shown
        .split_once("cursor: ")
        .context("journalctl shows no cursor")?;
    Ok(cursor.trim().to_owned())
}

fn unusable_configuration(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    let good = host.read_file(CONF)?;
    for (line, problem) in [
        (
            "etcd_sevrers=http://a:1",
            "unknown option `etcd_sevrers` in /etc/fleet/fleet.conf line 2; did you mean `etcd_servers`?",
        ),
        (
            "agent_ttl=1s",
            "agent_ttl in /etc/fleet/fleet.conf line 2: \"1s\" is too short: at least 2s",
        ),
        (
            "agent_ttl=soon",
            "agent_ttl in /etc/fleet/fleet.conf line 2",
        ),
        (
            "token_limit=0",
            "token_limit in /etc/fleet/fleet.conf line 2",
        ),
        (
            "public_ip=1.2.3",
            "public_ip in /etc/fleet/fleet.conf line 2",
        ),
        ("metadata=nokey", "metadata in /etc/fleet/fleet.conf line 2"),
        (
            "state_directory=relative",
            "state_directory in /etc/fleet/fleet.conf line 2",
        ),
        ("etcd_cafile=/nowhere.pem", "etcd_cafile"),
        (
            "no option at all",
            "/etc/fleet/fleet.conf line 2: not of the form key=value",
        ),
    ] {
        host.write_file(CONF, format!("{good}{line}\n"))?;
        let checked = host.exec(&["fleetd", "--check-config"])?;
        ensure!(
            checked.code == 78 && checked.stdout.contains(problem),
            "--check-config: {checked:?}"
        );
        let news = cursor(host)?;
        ensure!(restart(host)?.code != 0, "`{line}` was accepted");
        let state = host.systemctl_show("fleet.service", "SubState")?;
        ensure!(
            state == "failed",
            "`{line}`: fleet.service is {state}, expected no further attempt"
        );
        ensure!(
            host.systemctl_show("fleet.service", "ExecMainStatus")? == "78",
            "`{line}`"
        );
        let journal = since_then(host, &news)?;
        ensure!(journal.contains(problem), "`{line}`: {journal}");
    }
    host.write_file(CONF, &good)?;
    ensure!(host.exec(&["fleetd", "--check-config"])?.code == 0);
    restart(host)?.ok().map(drop)
}

fn no_machine_id(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    for (take, text) in [
        (
            "mv /etc/machine-id /etc/away",
            "/etc/machine-id is needed: systemd-machine-id-setup makes it",
        ),
        (
            "cp /etc/machine-id /etc/away; echo uninitialized > /etc/machine-id",
            "/etc/machine-id cannot be used: ",
        ),
    ] {
        // journalctl needs the id too.
        let news = cursor(host)?;
        host.sh(take)?.ok()?;
        let code = restart(host)?.code;
        host.sh("mv /etc/away /etc/machine-id")?.ok()?;
        ensure!(code != 0, "fleetd starts without a machine id");
        let journal = since_then(host, &news)?;
        ensure!(journal.contains(text), "{journal}");
        lab.wait_until(SOON, "fleetd comes up by itself once there is one", || {
            Ok(host.is_active("fleet.service"))
        })?;
    }
    Ok(())
}

fn second_fleetd(host: &Host) -> Result<()> {
    let pid = host.main_pid("fleet.service")?;
    let text = format!(
        "another fleetd (pid {pid}) runs with the same directory /run/fleet; stop it first"
    );
    // Another state directory does not make it another machine.
    for arguments in [
        &["fleetd"][..],
        &["fleetd", "--state-directory=/root/state"],
    ] {
        refused(&host.exec(arguments)?, 1, &text)?;
    }
    ensure!(host.main_pid("fleet.service")? == pid);
    host.fleetctl(&["list-machines"])?.ok().map(drop)
}

fn nobody_listens(host: &Host) -> Result<()> {
    let asked = host.fleetctl(&["--endpoint=unix:///run/nosuch.sock", "list-units"])?;
    refused(
        &asked,
        1,
        "cannot reach fleetd at unix:///run/nosuch.sock: No such file or directory. Is fleetd running here?",
    )?;
    host.exec(&["systemctl", "stop", "fleet.service", "fleet.socket"])?
        .ok()?;
    let asked = host.fleetctl(&["list-units"])?;
    refused(
        &asked,
        1,
        "Is fleetd running here? (systemctl status fleet.socket fleet.service)",
    )?;
    host.exec(&["systemctl", "start", "fleet.service"])?.ok()?;
    host.fleetctl(&["list-units"])?.ok().map(drop)
}

fn no_registry(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    lab.member(1).kill()?;
    for arguments in [
        &["list-machines"][..],
        &["list-units"],
        &["status"],
        &["destroy", "a.service"],
        &["submit", "/etc/fleet/units/a.service"],
    ] {
        let asked = host.fleetctl(arguments)?;
        refused(&asked, 1, "http://10.99.0.1:2379").with_context(|| format!("{arguments:?}"))?;
        ensure!(
            asked.stderr.contains("onnection refused") && asked.stderr.lines().count() == 1,
            "{asked:?}"
        );
    }
    lab.member(1).restart()?;
    lab.wait_until(SOON, "fleetctl answers again", || {
        Ok(host.fleetctl(&["list-units"])?.code == 0)
    })
}
