//! Repeats every recorded request to fleet 1.0's API, over a unix socket and over TCP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};
use lab::{Host, Lab};

use super::transcript::{self, Exchange};
use super::{SOON, on_recorded_hosts};

#[test]
fn the_api_gives_the_recorded_answers_on_both_sockets() {
    on_recorded_hosts(|lab| {
        let one = lab.host(1);
        replay(lab, |request| {
            send(UnixStream::connect(one.path("/run/fleet.sock"))?, request)
        })
        .context("over the unix socket")?;
        replay(lab, |request| send(connect(one)?, request)).context("over TCP")
    });
}

fn replay(lab: &Lab, ask: impl Fn(&str) -> Result<String>) -> Result<()> {
    let listed = || lab.host(1).fleetctl(&["list-units", "--no-legend"])?.ok();
    lab.wait_until(SOON, "nothing is reported any more", || {
        Ok(listed()?.is_empty())
    })?;
    for exchange in transcript::recorded() {
        let answer = shown(&ask(&written(&exchange))?)?;
        ensure!(
            exchange.is_answered_by(&answer),
            "{exchange:#?}\nnow:\n{answer}"
        );
        if exchange.creates() {
            lab.wait_until(SOON, "the unit runs everywhere", || {
                Ok(listed()?.matches("\tactive\trunning").count() == 3)
            })?;
        }
    }
    Ok(())
}

fn written(exchange: &Exchange) -> String {
    let Exchange {
        method,
        path,
        headers,
        body,
        ..
    } = exchange;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Returns an answer in the recorded form, after checking the headers that are left out there.
fn shown(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    let (status, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let header = |wanted: &str| {
        let mut headers = headers.lines().filter_map(|line| line.split_once(": "));
        headers.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value))
    };
    ensure!(
        header("server").is_some_and(|server| server.starts_with("fleetd/v")),
        "{answer}"
    );
    let length = header("content-length").map_or(Ok(0), str::parse);
    ensure!(length == Ok(body.len()), "{answer}");
    let status = status
        .strip_prefix("HTTP/1.1 ")
        .context("another version")?;
    Ok(transcript::shown(status, header("content-type"), body))
}

fn connect(host: &Host) -> Result<TcpStream> {
    let address = (host.address(), 49153);
    host.link().inside(|| Ok(TcpStream::connect(address)?))
}

fn send(mut stream: impl Read + Write, request: &str) -> Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
