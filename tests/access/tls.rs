//! Shows that only clients with a certificate are served over TCP, and that both sides report what
//! is wrong with one.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Output};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use crate::support::looking::{SOON, refused};

const SOCKET: &str = "[Socket]\nListenStream=49153\n";
const ENDPOINT: &str = "https://10.99.1.1:49153";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Result<Authority> {
    let mut authority = CertificateParams::new([])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(
        authority,
        KeyPair::generate()?,
    )?)
}

/// Puts a certificate for these names, and its key, at `PLACE.cert` and `PLACE.key`.
fn certify(host: &Host, by: &Authority, place: &str, name: &str, expired: bool) -> Result<()> {
    let mut leaf = CertificateParams::new([name.to_owned()])?;
    if expired {
        leaf.not_before = date_time_ymd(2001, 1, 1);
        leaf.not_after = date_time_ymd(2002, 1, 1);
    }
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, by)?;
    host.write_file(&format!("{place}.cert"), leaf.pem())?;
    host.write_file(&format!("{place}.key"), key.serialize_pem())
}

/// Runs fleetctl as root on that host, with the authority it trusts and the certificate it shows.
fn asked(host: &Host, endpoint: &str, ca: &str, shown: Option<&str>) -> Result<Output> {
    let mut command = vec![
        "list-machines".to_owned(),
        "--no-legend".to_owned(),
        "--request-timeout=20".to_owned(),
        format!("--endpoint={endpoint}"),
        format!("--ca-file=/root/{ca}"),
    ];
    if let Some(shown) = shown {
        command.push(format!("--cert-file=/root/{shown}.cert"));
        command.push(format!("--key-file=/root/{shown}.key"));
    }
    host.fleetctl(&command.iter().map(String::as_str).collect::<Vec<_>>())
}

fn served(host: &Host) -> Result<()> {
    let listed = asked(host, ENDPOINT, "ca", Some("me"))?.ok()?;
    ensure!(listed.lines().count() == 2, "{listed}");
    Ok(())
}

#[test]
fn over_tcp_only_clients_with_a_certificate_are_served() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        let (one, two) = (lab.host(1), lab.host(2));
        let (ours, others) = (authority()?, authority()?);
        one.write_file("/etc/systemd/system/fleet.socket.d/tcp.conf", SOCKET)?;
        one.write_file("/etc/fleet/tls/ca", ours.pem())?;
        two.write_file("/root/ca", ours.pem())?;
        two.write_file("/root/other-ca", others.pem())?;
        certify(two, &ours, "/root/me", "me", false)?;
        certify(two, &ours, "/root/expired", "me", true)?;
        certify(two, &others, "/root/stranger", "me", false)?;
        let files = ["cafile=/etc/fleet/tls/ca", "certfile=/etc/fleet/tls/own.cert", "keyfile=/etc/fleet/tls/own.key"];
        lab.install_fleet(|host| {
            let files = files.iter().filter(|_| host.number() == 1);
            files.fold(lab.fleet_conf(), |conf, file| conf.line(&format!("api_{file}")))
        })?;
        lab.wait_until(SOON, "both machines are listed", || {
            Ok(one.fleetctl(&["list-machines", "--no-legend"])?.stdout.lines().count() == 2)
        })?;
        let journal = one.journal(1000)?;
        ensure!(
            journal.contains("[::]:49153 serves no clients until this is fixed: api_certfile /etc/fleet/tls/own.cert: there is no such file"),
            "{journal}"
        );
        asked(two, ENDPOINT, "ca", Some("me"))?.ok().expect_err("without a certificate of fleetd's");
        certify(one, &ours, "/etc/fleet/tls/own", "10.99.1.1", false)?;
        served(two).context("put right without a restart")?;
        with_variables(two)?;
        wrong_clients(two)?;
        wrong_servers(one, two, &ours)
    });
}

fn with_variables(host: &Host) -> Result<()> {
    let listed = host.sh(&format!(
        "FLEETCTL_ENDPOINT={ENDPOINT} FLEETCTL_CA_FILE=/root/ca FLEETCTL_CERT_FILE=/root/me.cert FLEETCTL_KEY_FILE=/root/me.key \
         fleetctl list-machines --no-legend"
    ))?;
    ensure!(listed.ok()?.lines().count() == 2);
    Ok(())
}

fn wrong_clients(host: &Host) -> Result<()> {
    for (shown, why) in [
        (
            None,
            "it serves only clients with a certificate: give --cert-file and --key-file",
        ),
        (
            Some("stranger"),
            "it does not accept the certificate of --cert-file",
        ),
        (
            Some("expired"),
            "it finds that the certificate of --cert-file has expired",
        ),
        (
            Some("nowhere"),
            "--cert-file /root/nowhere.cert: there is no such file",
        ),
    ] {
        let answer = asked(host, ENDPOINT, "ca", shown)?;
        refused(&answer, 1, why).with_context(|| format!("{shown:?}"))?;
    }
    let answer = asked(host, ENDPOINT, "other-ca", Some("me"))?;
    refused(
        &answer,
        1,
        "its certificate is not signed by the authority in --ca-file",
    )?;
    // Plain HTTP gets no HTTP answer, and does no harm.
    let plain = host.fleetctl(&["--endpoint", "http://10.99.1.1:49153", "list-machines"])?;
    ensure!(
        plain.code == 1 && plain.stdout.is_empty(),
        "{}",
        plain.stdout
    );
    served(host).context("after all of these")
}

fn wrong_servers(one: &Host, two: &Host, ours: &Authority) -> Result<()> {
    for (name, expired, why) in [
        (
            "node1.example",
            false,
            "its certificate is for another name",
        ),
        ("10.99.1.1", true, "its certificate has expired"),
    ] {
        certify(one, ours, "/etc/fleet/tls/own", name, expired)?;
        let answer = asked(two, ENDPOINT, "ca", Some("me"))?;
        refused(&answer, 1, why)?;
    }
    // Half a renewal disconnects no client.
    certify(one, ours, "/etc/fleet/tls/own", "10.99.1.1", false)?;
    served(two)?;
    one.write_file("/etc/fleet/tls/own.cert", "half")?;
    served(two).context("with half a certificate")?;
    ensure!(
        one.journal(1000)?
            .contains("serving TLS with what was there before")
    );
    Ok(())
}
