//! Shows that `--tunnel` reaches the fleetd of another host.

use anyhow::{Context, Result, ensure};
use lab::Lab;

use super::{fleetctl, logins, on_three_hosts};
use crate::support::looking::{SOON, gone_everywhere, refused, sleeper};

#[test]
fn any_host_with_ssh_reaches_the_fleet_through_a_tunnel() {
    on_three_hosts(|lab| {
        // Without this, the host that runs fleetctl could answer itself.
        lab.host(1)
            .sh("mv /run/fleet.sock /run/hidden.sock")?
            .ok()?;
        refused(
            &fleetctl(lab.host(1), "list-machines")?,
            1,
            "cannot reach fleetd at unix:///var/run/fleet.sock",
        )?;
        flags_and_environment(lab).context("flags and environment")?;
        batch(lab).context("a batch")?;
        failures(lab).context("failures")
    });
}

/// Makes a fleetd listen on its host's loopback, which other hosts only reach through a tunnel.
fn listen_on_tcp(lab: &Lab) -> Result<()> {
    let two = lab.host(2);
    two.write_file(
        "/etc/systemd/system/fleet.socket.d/tcp.conf",
        "[Socket]\nListenStream=127.0.0.1:8080\n",
    )?;
    let conf = lab
        .fleet_conf()
        .metadata("host=n2")
        .line("insecure_tcp=true");
    two.write_file("/etc/fleet/fleet.conf", conf.to_string())?;
    two.sh("systemctl daemon-reload && systemctl stop fleet.service && systemctl restart fleet.socket && systemctl start fleet.service")?
        .ok()?;
    lab.wait_until(SOON, "it is listed again", || {
        Ok(fleetctl(lab.host(3), "list-machines")?
            .ok()?
            .contains("host=n2"))
    })
}

/// Gives the first two hosts the addresses `fd99::1` and `fd99::2`.
fn speak_ipv6(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.host(1), lab.host(2));
    one.sh("ip address add fd99::1/64 dev eth0 nodad")?.ok()?;
    two.sh("ip address add fd99::2/64 dev eth0 nodad")?.ok()?;
    one.sh("cd /root/.fleetctl; sed -n 's/^10.99.1.2 /fd99::2 /p' known_hosts > more; cat more >> known_hosts")?
        .ok()
        .map(drop)
}

fn flags_and_environment(lab: &Lab) -> Result<()> {
    listen_on_tcp(lab)?;
    speak_ipv6(lab)?;
    let (one, expected) = (lab.host(1), fleetctl(lab.host(3), "list-machines")?.ok()?);
    ensure!(expected.lines().count() == 4, "{expected}");
    for way in [
        "fleetctl --tunnel=10.99.1.2 list-machines",
        "fleetctl list-machines --tunnel core@10.99.1.2:22",
        "FLEETCTL_TUNNEL=10.99.1.2 fleetctl list-machines",
        "fleetctl --tunnel=fd99::2 list-machines",
        "fleetctl --tunnel=[fd99::2]:22 list-machines",
        "FLEETCTL_TUNNEL= fleetctl --endpoint=unix:///run/hidden.sock list-machines",
        "FLEETCTL_TUNNEL=10.99.1.2 FLEETCTL_ENDPOINT=http://127.0.0.1:8080 fleetctl list-machines",
        "FLEETCTL_SSH_USERNAME=nobody FLEETCTL_TUNNEL=core@10.99.1.2 fleetctl list-machines",
        "cp /root/.fleetctl/known_hosts '/root/100% known'; FLEETCTL_KNOWN_HOSTS_FILE='~/100% known' FLEETCTL_TUNNEL=10.99.1.2 fleetctl list-machines",
    ] {
        let listed = one.sh(way)?;
        ensure!(
            (listed.code, &listed.stdout, &*listed.stderr) == (0, &expected, ""),
            "{listed:?}"
        );
    }
    Ok(())
}

fn batch(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.host(1), lab.host(2));
    let names: Vec<String> = (0..10).map(|n| format!("u{n}.service")).collect();
    for name in &names {
        one.write_file(&format!("/root/{name}"), sleeper(1000))?;
    }
    let before = logins(two, "core", one)?;
    let started = fleetctl(
        one,
        "--tunnel=10.99.1.2 start --wait u0 u1 u2 u3 u4 u5 u6 u7 u8 u9",
    )?;
    started.ok()?;
    ensure!(
        logins(two, "core", one)? == before + 1,
        "a batch takes one login"
    );
    for (host, name) in lab
        .hosts()
        .iter()
        .flat_map(|host| names.iter().map(move |name| (host, name)))
    {
        ensure!(
            host.is_active(name),
            "{name} does not run on {}",
            host.name()
        );
    }
    fleetctl(one, "--tunnel=10.99.1.2 destroy 'u*'")?.ok()?;
    names.iter().try_for_each(|name| gone_everywhere(lab, name))
}

fn failures(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.host(1), lab.host(2));
    let asked = |flags: &str| fleetctl(one, &format!("{flags} list-machines"));
    // Nothing listens there.
    let closed = asked("--tunnel=10.99.1.2:2222")?;
    refused(
        &closed,
        1,
        "ssh: connect to host 10.99.1.2 port 2222: Connection refused\n",
    )?;
    refused(
        &closed,
        1,
        "the tunnel to core@10.99.1.2:2222 failed: does an SSH server run on 10.99.1.2",
    )?;
    // One user may log in but not use the socket. Another one may not log in.
    two.sh("useradd --create-home --shell /bin/bash eve && cp -r /home/core/.ssh /home/eve/")?
        .ok()?;
    let eve = asked("--tunnel=eve@10.99.1.2")?;
    refused(
        &eve,
        1,
        "Failed dialing remote address: /var/run/fleet.sock: Permission denied",
    )?;
    refused(
        &eve,
        1,
        "does not reach fleetd there, at unix:///var/run/fleet.sock: may eve use that socket?",
    )?;
    // A key that permits only the tunnel.
    two.sh("usermod --append --groups fleet eve && sed -i 's|^|restrict,command=\"fleetctl fd-forward /run/fleet.sock\" |' /home/eve/.ssh/authorized_keys")?
        .ok()?;
    asked("--tunnel=eve@10.99.1.2")?.ok()?;
    let confined = fleetctl(one, "--tunnel=eve@10.99.1.2 --ssh-username=eve ssh c46a id")?;
    ensure!(!confined.stdout.contains("uid="), "{confined:?}");
    let nobody = asked("--tunnel=10.99.1.2 --ssh-username=games")?;
    refused(&nobody, 1, "Permission denied")?;
    refused(&nobody, 1, "--ssh-username names another user")?;
    // The other host has no fleetctl.
    two.sh("mv /usr/bin/fleetctl /usr/bin/hidden")?.ok()?;
    let missing = asked("--tunnel=10.99.1.2")?;
    two.sh("mv /usr/bin/hidden /usr/bin/fleetctl")?.ok()?;
    refused(&missing, 1, "there is no fleetctl in that user's PATH")?;
    // There is no network between them.
    two.partition()?;
    let silent = asked("--tunnel=10.99.1.2 --ssh-timeout=1")?;
    two.heal()?;
    refused(
        &silent,
        1,
        "the tunnel to core@10.99.1.2 failed: does an SSH server run on 10.99.1.2",
    )?;
    lab.wait_until(SOON, "no end of a tunnel is left", || {
        let left = two.sh("grep -lx fleetctl /proc/[0-9]*/comm")?;
        Ok(left.stdout.is_empty())
    })
}
