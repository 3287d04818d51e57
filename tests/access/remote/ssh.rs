//! Shows that `fleetctl ssh` runs commands on the requested host, as ssh would.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Output};

use super::{fleetctl, logins, on_three_hosts};
use crate::support::looking::{SOON, refused, runs_everywhere, sleeper};

#[test]
fn a_command_runs_on_the_host_that_was_meant() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        one.exec(&["systemctl", "stop", "ssh.service"])?.ok()?;
        machines(one).context("machines")?;
        units(lab).context("units")?;
        what_ssh_does(one).context("what ssh does")?;
        through_a_tunnel(lab).context("through a tunnel")
    });
}

/// Checks what a command printed, and its exit code.
fn printed(output: Result<Output>, stdout: &str, code: i32) -> Result<()> {
    let output = output?;
    ensure!(
        (&*output.stdout, output.code) == (stdout, code),
        "expected {stdout:?} and {code}: {output:?}"
    );
    Ok(())
}

fn machines(one: &Host) -> Result<()> {
    printed(
        fleetctl(one, "ssh c46a 'hostname; id -un; exit 7'"),
        "n2\ncore\n",
        7,
    )?;
    printed(
        fleetctl(
            one,
            "ssh --machine d77c07da461707ed4699d4df0c87385e hostname",
        ),
        "n3\n",
        0,
    )?;
    printed(
        fleetctl(one, "ssh -m d77c07da.../10.99.1.3 ls -d /home/core"),
        "/home/core\n",
        0,
    )?;
    printed(one.sh("echo hello | fleetctl ssh c46a cat"), "hello\n", 0)?;
    // A login shell prints a greeting.
    let shell = one.sh("echo hostname | fleetctl ssh c46a")?;
    ensure!(shell.stdout.ends_with("\nn2\n"), "{shell:?}");
    // This host no longer has an SSH server.
    printed(
        fleetctl(one, "ssh 190c 'hostname; id -un; exit 3'"),
        "n1\nroot\n",
        3,
    )?;
    printed(one.sh("echo hostname | fleetctl ssh 190c"), "n1\n", 0)?;
    refused(
        &fleetctl(one, "ssh")?,
        1,
        "Unable to proceed: one machine or unit must be provided",
    )?;
    refused(
        &fleetctl(one, "ssh -m a -u b")?,
        1,
        "Unable to proceed: Both machine and unit flags provided, please specify only one.",
    )?;
    refused(
        &fleetctl(one, "ssh nosuch")?,
        1,
        "Unable to proceed: could not find matching unit or machine",
    )?;
    let closed = fleetctl(one, "ssh --ssh-port=2222 c46a true")?;
    refused(&closed, 255, "port 2222: Connection refused")?;
    refused(
        &closed,
        255,
        "ssh to core@10.99.1.2:2222 ended with 255: host keys are taken from /root/.fleetctl/known_hosts",
    )
}

fn units(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    one.write_file("/root/all.service", sleeper(1000))?;
    one.write_file(
        "/root/lone.service",
        sleeper(1001) + "MachineMetadata=host=n3\n",
    )?;
    fleetctl(one, "start all.service lone.service")?.ok()?;
    runs_everywhere(lab, "all.service", 1000)?;
    lab.wait_until(SOON, "lone.service runs", || {
        Ok(lab.host(3).is_active("lone.service"))
    })?;
    printed(fleetctl(one, "ssh lone hostname"), "n3\n", 0)?;
    printed(fleetctl(one, "ssh --unit lone.service hostname"), "n3\n", 0)?;
    let several = fleetctl(one, "ssh all.service 'hostname; exit 4'")?;
    refused(
        &several,
        1,
        "unit all.service is on 3 machines, choose one:\n",
    )?;
    let typed = several
        .stderr
        .lines()
        .find(|line| line.contains("c46a"))
        .context("no n2")?;
    printed(one.sh(typed), "n2\n", 4)
}

fn what_ssh_does(one: &Host) -> Result<()> {
    let terminal = fleetctl(one, "ssh --pty c46a tty")?.ok()?;
    ensure!(terminal.starts_with("/dev/pts/"), "{terminal}");
    let agent =
        "ssh-agent sh -c 'ssh-add -q /root/.ssh/id_ed25519 && fleetctl ssh FLAG c46a ssh-add -l'";
    let forwarded = one.sh(&agent.replace("FLAG", "-A"))?.ok()?;
    ensure!(forwarded.contains("ED25519"), "{forwarded}");
    let kept = one.sh(&agent.replace("FLAG", ""))?;
    ensure!(
        kept.code == 2,
        "the agent was forwarded without being asked: {kept:?}"
    );
    // ssh also reads the user's own configuration.
    one.write_file(
        "/root/.ssh/config",
        "Host 10.99.1.3\n  SetEnv LC_SAID=hello\n",
    )?;
    printed(fleetctl(one, "ssh d77c 'echo $LC_SAID'"), "hello\n", 0)
}

fn through_a_tunnel(lab: &Lab) -> Result<()> {
    let (one, two, three) = (lab.host(1), lab.host(2), lab.host(3));
    let (direct, relayed) = (logins(three, "core", one)?, logins(three, "core", two)?);
    printed(
        fleetctl(one, "--tunnel=10.99.1.2 ssh d77c 'hostname; exit 5'"),
        "n3\n",
        5,
    )?;
    ensure!(
        logins(three, "core", one)? == direct,
        "the tunnel was passed by"
    );
    ensure!(
        logins(three, "core", two)? == relayed + 1,
        "no login came through the tunnel"
    );
    // A connection through the tunnel also takes no longer than the requested limit.
    three.partition()?;
    let silent = fleetctl(one, "--tunnel=10.99.1.2 --ssh-timeout=1 ssh d77c true");
    three.heal()?;
    refused(&silent?, 255, "ssh to core@10.99.1.3 ended with 255")
}
