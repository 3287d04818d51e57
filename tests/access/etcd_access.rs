//! Shows that fleetd works with an etcd that requires certificates or a password. A wrong one stops
//! fleetd and units as little as an unreachable etcd. No message has the password.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::{FleetConf, Host, Lab, requirements};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::looking::{SOON, runs_everywhere, sleeper};

/// The TLS address of the lab's etcd, beside its usual one.
const WITH_TLS: &str = "https://10.99.0.1:2381";
const PASSWORD: &str = "correct-horse-4711";
/// The files of a host in /etc/fleet, by option.
const FILES: [(&str, &str); 3] = [
    ("etcd_cafile", "ca"),
    ("etcd_certfile", "cert"),
    ("etcd_keyfile", "key"),
];

#[test]
fn fleetd_uses_the_certificate_or_password_that_etcd_needs() {
    // The certificates must exist before the lab does.
    if let Err(why) = requirements::requirements() {
        return requirements::skip(&format!("{why:#}"));
    }
    let (own, others) = (
        certificates().expect("certificates"),
        certificates().expect("certificates"),
    );
    let file = |name: &str| own.path().join(name).display().to_string();
    let arguments = [
        &format!("--listen-client-urls=http://10.99.0.1:2379,http://127.0.0.1:2379,{WITH_TLS}"),
        "--client-cert-auth",
        &format!("--trusted-ca-file={}", file("ca")),
        &format!("--cert-file={}", file("cert")),
        &format!("--key-file={}", file("key")),
    ];
    Lab::builder()
        .etcd(1)
        .etcd_arguments(&arguments)
        .test(|lab| {
            let host = lab.host(1);
            for (folder, files) in [("own", own.path()), ("others", others.path())] {
                install(host, folder, files)?;
            }
            host.install_fleet(&certified("own", "own"))?;
            host.write_file("/etc/fleet/units/a.service", sleeper(1000))?;
            runs_everywhere(lab, "a.service", 1000)?;
            let pid = host.main_pid("a.service")?;
            wrong_certificates(lab, host).context("certificates")?;
            passwords(lab, host).context("user and password")?;
            ensure!(host.main_pid("a.service")? == pid, "a.service was touched");
            Ok(())
        });
}

/// Returns an authority, and a certificate with its key for etcd and its clients.
fn certificates() -> Result<tempfile::TempDir> {
    let mut authority = CertificateParams::new([])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["10.99.0.1".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let folder = tempfile::tempdir()?;
    for (name, text) in [
        ("ca", authority.pem()),
        ("cert", leaf.pem()),
        ("key", key.serialize_pem()),
    ] {
        fs::write(folder.path().join(name), text)?;
    }
    Ok(folder)
}

fn install(host: &Host, folder: &str, files: &Path) -> Result<()> {
    FILES.iter().try_for_each(|(_, name)| {
        host.write_file(
            &format!("/etc/fleet/{folder}/{name}"),
            fs::read(files.join(name))?,
        )
    })
}

/// Returns a configuration that trusts that authority, and shows that certificate.
fn certified(authority: &str, certificate: &str) -> FleetConf {
    FILES.iter().fold(
        FleetConf::new(&[WITH_TLS.to_owned()]),
        |conf, (option, name)| {
            let folder = if *name == "ca" {
                authority
            } else {
                certificate
            };
            conf.line(&format!("{option}=/etc/fleet/{folder}/{name}"))
        },
    )
}

fn with_password(lab: &Lab, password: &str) -> FleetConf {
    lab.fleet_conf()
        .line("etcd_username=fleet")
        .line(&format!("etcd_password={password}"))
}

fn restart_with(host: &Host, conf: &FleetConf) -> Result<()> {
    host.write_file("/etc/fleet/fleet.conf", conf.to_string())?;
    host.exec(&["systemctl", "restart", "fleet.service"])?
        .ok()
        .map(drop)
}

/// Waits until fleetctl and the journal report this text.
fn told(lab: &Lab, host: &Host, text: &str) -> Result<()> {
    let mut said = String::new();
    lab.wait_until(SOON, &format!("fleetctl tells of `{text}`"), || {
        let output = host.fleetctl(&["list-machines"])?;
        said = output.stderr;
        Ok(output.code == 1 && said.contains(text))
    })
    .with_context(|| said)?;
    lab.wait_until(SOON, &format!("the journal tells of `{text}`"), || {
        Ok(host.journal(200)?.contains(text))
    })?;
    ensure!(host.is_active("fleet.service"), "fleetd ended for it");
    Ok(())
}

fn works(lab: &Lab, host: &Host) -> Result<()> {
    lab.wait_until(SOON, "the machine is listed", || {
        Ok(host
            .fleetctl(&["list-machines", "--no-legend", "--fields=machine"])?
            .stdout
            == "190c6f8f...\n")
    })?;
    lab.wait_until(SOON, "its units are listed", || {
        Ok(host
            .fleetctl(&["list-units", "--no-legend", "--fields=unit,sub"])?
            .stdout
            == "a.service\trunning\n")
    })
}

fn wrong_certificates(lab: &Lab, host: &Host) -> Result<()> {
    works(lab, host)?;
    restart_with(host, &certified("others", "own"))?;
    told(lab, host, "invalid peer certificate")
        .context("an authority that did not sign etcd's certificate")?;
    restart_with(host, &certified("own", "others"))?;
    told(lab, host, WITH_TLS).context("a certificate of another authority")?;
    // Fixed without a restart, like a renewed certificate.
    host.sh("cp /etc/fleet/own/* /etc/fleet/others/")?.ok()?;
    works(lab, host)
}

fn passwords(lab: &Lab, host: &Host) -> Result<()> {
    for arguments in [
        &["user", "add", &format!("root:{PASSWORD}")][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", &format!("fleet:{PASSWORD}")],
        &["role", "add", "fleet"],
        &[
            "role",
            "grant-permission",
            "fleet",
            "--prefix=true",
            "readwrite",
            "/_coreos.com/fleet/",
        ],
        &["user", "grant-role", "fleet", "fleet"],
        &["auth", "enable"],
    ] {
        lab.member(1).etcdctl(arguments)?.ok()?;
    }
    restart_with(host, &lab.fleet_conf())?;
    told(lab, host, "set etcd_username and etcd_password").context("no password")?;
    restart_with(host, &with_password(lab, "battery-staple-0815"))?;
    told(lab, host, "check etcd_username and etcd_password").context("a wrong password")?;
    restart_with(host, &with_password(lab, PASSWORD))?;
    works(lab, host).context("the right password")?;

    let checked = host.exec(&["fleetd", "--check-config"])?.ok()?;
    ensure!(checked.contains("etcd_password=(hidden)"), "{checked}");
    let told = [
        ("--check-config", checked),
        ("the journal", host.journal(100_000)?),
        (
            "systemctl status",
            host.sh("systemctl status fleet.service")?.stdout,
        ),
        (
            "its environment and command line",
            host.sh(
                "cat /proc/$(systemctl show --value -p MainPID fleet.service)/{environ,cmdline}",
            )?
            .stdout,
        ),
        ("fleetctl", host.fleetctl(&["status"])?.stdout),
    ];
    for (place, text) in told {
        for password in [PASSWORD, "battery-staple-0815"] {
            ensure!(!text.contains(password), "{place} tells the password");
        }
    }
    Ok(())
}
