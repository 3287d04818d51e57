//! Shows on which sockets the API is served, to which clients, and that no client can block it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{SOON, refused};

const SOCKETS: &str =
    "[Socket]\nListenStream=/run/second.sock\nListenStream=49153\nListenStream=127.0.0.1:49154\n";

/// The warning that fleetd logs at its start for each plain TCP socket.
const WARNING: &str = "can run anything as root on every machine";

/// More connections than fleetd serves at once over TCP.
const MANY: usize = 300;

#[test]
fn tcp_sockets_are_served_only_where_that_was_allowed() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let one = lab.host(1);
        lab.install_fleet(|_| lab.fleet_conf())?;
        one.write_file("/etc/systemd/system/fleet.socket.d/more.conf", SOCKETS)?;
        restart(one)?;
        lab.wait_until(SOON, "both machines are listed", || {
            lists(one, "unix:///run/fleet.sock").map(|()| true)
        })?;
        for socket in ["/run/fleet.sock", "/var/run/fleet.sock", "/run/second.sock"] {
            lists(one, &format!("unix://{socket}"))?;
        }
        refuses_tcp(lab).context("nothing allows it")?;
        let environment = "/etc/systemd/system/fleet.service.d/tcp.conf";
        one.write_file(
            environment,
            "[Service]\nEnvironment=FLEET_INSECURE_TCP=true\n",
        )?;
        restart(one)?;
        serves_tcp(lab, 1).context("the environment allows it")?;
        one.sh(&format!(
            "rm {environment}; echo insecure_tcp=true >> /etc/fleet/fleet.conf"
        ))?
        .ok()?;
        restart(one)?;
        serves_tcp(lab, 2).context("fleet.conf allows it")
    });
}

fn lists(host: &Host, endpoint: &str) -> Result<()> {
    let listed = host.fleetctl(&["--endpoint", endpoint, "list-machines", "--no-legend"])?;
    ensure!(listed.ok()?.lines().count() == 2, "{endpoint}");
    Ok(())
}

fn refuses_tcp(lab: &Lab) -> Result<()> {
    let one = lab.host(1);
    for (host, endpoint, address) in [
        (one, "http://127.0.0.1:49154", "127.0.0.1:49154"),
        (lab.host(2), "http://10.99.1.1:49153", "[::]:49153"),
    ] {
        let why = format!(
            "fleetd does not serve the TCP socket {address} that systemd handed over: anybody who reaches it could run \
             anything as root on every machine; remove it from fleet.socket, or set api_cafile, api_certfile and api_keyfile in fleet.conf to serve clients with a \
             certificate (insecure_tcp=true serves anybody)"
        );
        let listed = host.fleetctl(&["--endpoint", endpoint, "list-machines"])?;
        refused(&listed, 1, &why)?;
        ensure!(
            one.journal(1000)?.contains(&why),
            "the journal does not say so"
        );
    }
    Ok(())
}

fn serves_tcp(lab: &Lab, start: usize) -> Result<()> {
    lists(lab.host(1), "http://127.0.0.1:49154")?;
    lists(lab.host(2), "http://10.99.1.1:49153")?;
    for address in ["127.0.0.1:49154", "[::]:49153"] {
        let warning = format!("insecure_tcp=true: anybody who reaches {address} {WARNING}");
        let journal = lab.host(1).journal(1000)?;
        ensure!(journal.matches(&warning).count() == start, "{journal}");
    }
    Ok(())
}

fn restart(host: &Host) -> Result<()> {
    host.exec(&["systemctl", "daemon-reload"])?.ok()?;
    host.exec(&["systemctl", "restart", "fleet.socket", "fleet.service"])?
        .ok()?;
    Ok(())
}

#[test]
fn clients_that_stall_or_send_too_much_block_no_others() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let one = lab.host(1);
        one.write_file("/etc/systemd/system/fleet.socket.d/more.conf", SOCKETS)?;
        lab.install_fleet(|_| lab.fleet_conf().line("insecure_tcp=true"))?;
        let remote = "http://10.99.1.1:49153";
        lab.wait_until(SOON, "the API is served", || {
            lists(one, remote).map(|()| true)
        })?;
        let pid = one.main_pid("fleet.service")?;
        too_much(one).context("100 MB")?;
        let stalled = stalled(one).context("a client that reads nothing")?;
        let mut slow = connections(one)?;
        lists(one, "unix:///run/fleet.sock").context("root here waits for strangers")?;
        // All others share the places of one address.
        let asked = ["--endpoint", remote, "list-machines"];
        lab.host(2).fleetctl(&asked)?.ok()?;
        for stream in &mut slow {
            match stream.read(&mut [0; 1024]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error).context("a client was not cut"),
            }
        }
        ensure!(
            one.journal(1000)?
                .contains("10.99.1.1 has as many connections as the API serves at once")
        );
        lab.wait_until(3 * SOON, "no connection is left open", || {
            Ok(established(one)?.is_empty())
        })?;
        drop((slow, stalled));
        ensure!(
            one.main_pid("fleet.service")? == pid,
            "fleetd ended meanwhile"
        );
        Ok(())
    });
}

/// Checks that a body of 100 MB, announced or not, is refused after little of it was sent.
fn too_much(host: &Host) -> Result<()> {
    let chunk = format!("20000\r\n{}\r\n", " ".repeat(0x20000));
    for (length, body) in [
        ("Content-Length: 104857600", String::new()),
        ("Transfer-Encoding: chunked", chunk.repeat(9)),
    ] {
        let mut stream = connect(host)?;
        write!(
            stream,
            "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{length}\r\n\r\n{body}"
        )?;
        let mut answer = [0; 512];
        let read = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..read]);
        ensure!(answer.starts_with("HTTP/1.1 413 "), "{length}: {answer}");
        ensure!(
            answer.contains("request body is too large (max 1048576 bytes)"),
            "{answer}"
        );
    }
    Ok(())
}

/// Returns a client that requests more than fits between it and fleetd, and reads nothing.
fn stalled(host: &Host) -> Result<TcpStream> {
    // It has few lines: it is parsed four times on its way, and machines that run tests are busy.
    let line = format!("# {}\n", "large".repeat(200));
    let large = format!("[Service]\nExecStart=/bin/true\n{}", line.repeat(400));
    for number in 1..=20 {
        host.write_file(&format!("/root/large/{number}.service"), &large)?;
    }
    host.sh("cd /root/large; for unit in *; do fleetctl submit $unit || exit 1; done")?
        .ok()?;
    let mut stream = connect(host)?;
    write!(
        stream,
        "GET /fleet/v1/units?content=true HTTP/1.1\r\nHost: a\r\n\r\n"
    )?;
    stream.peek(&mut [0]).context("there is no answer")?;
    ensure!(established(host)?.lines().count() == 1, "it is cut already");
    Ok(stream)
}

/// Returns the connections to fleetd over the network, one a line.
fn established(host: &Host) -> Result<String> {
    host.sh("ss --no-header --tcp --numeric state established '( sport = :49153 )'")?
        .ok()
}

/// Returns clients that begin a request and never end it.
fn connections(host: &Host) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for _ in 0..MANY {
        let mut stream = connect(host)?;
        // A client beyond the share may already be disconnected.
        let _ = stream.write_all(b"GET /fleet/v1/units HTTP/1.1\r\nX-Slow: ");
        streams.push(stream);
    }
    Ok(streams)
}

fn connect(host: &Host) -> Result<TcpStream> {
    let address = (host.address(), 49153);
    let stream = host.link().inside(|| Ok(TcpStream::connect(address)?))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}
