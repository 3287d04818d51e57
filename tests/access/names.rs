//! Shows that no name, however fleet gets it, reaches a file or a key of something else.

use std::os::unix::ffi::OsStrExt;
use std::{ffi::OsStr, fs};

use anyhow::{Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{listed, runs_everywhere, sleeper};

/// Names that would mean another place, or nothing.
const EVIL: [&str; 10] = [
    "../evil.service",
    "..",
    "a/../../evil.service",
    "/etc/systemd/system/evil.service",
    "evil\n.service",
    "evil%2f..%2fx.service",
    ".evil.service",
    "evil\u{202e}.service",
    "evil.service/",
    "units/evil.service",
];

/// Returns every file and every link with that name on the host.
fn evil_files(host: &Host) -> Result<String> {
    let find = "find / -xdev -name '*evil*' -not -path '/proc/*' -not -path '/usr/share/zoneinfo/*' -not -path '/etc/fleet/units/*' -not -path '/root/*'; \
                find /run /tmp /var/tmp -name '*evil*' -not -path '/run/host/*'";
    Ok(host.sh(find)?.stdout)
}

#[test]
fn evil_names_reach_no_file_and_stop_no_unit() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        listed(lab)?;
        // Written directly, by an attacker who has the registry's password.
        let record = r#"{"format":1,"target":"launched"}"#;
        let long = format!("units/{}.service", "x".repeat(300));
        let mut keys: Vec<String> = EVIL.iter().map(|name| format!("units/{name}")).collect();
        keys.extend([
            long,
            "units/".to_owned(),
            "grants/../evil.service".to_owned(),
            "metadata/..".to_owned(),
        ]);
        keys.extend([
            "machines/../evil".to_owned(),
            "reports/evil".to_owned(),
            "known/evil/x".to_owned(),
        ]);
        for key in &keys {
            let key = format!("/_coreos.com/fleet/{key}");
            lab.member(1).etcdctl(&["put", &key, record])?.ok()?;
        }
        // Put into the units directory as files.
        let folder = host.path("/etc/fleet/units");
        for name in [
            &b"evil\n.service"[..],
            b"evil\xff.service",
            b".evil.service",
            "evil\u{202e}.service".as_bytes(),
        ] {
            fs::write(folder.join(OsStr::from_bytes(name)), sleeper(666))?;
        }
        fs::write(
            folder.join(format!("{}.service", "x".repeat(247))),
            sleeper(1000),
        )?;
        // Requested over the API.
        for path in [
            "units/..%2F..%2Fevil.service",
            "units/%2e%2e%2fevil.service",
            "units/../../../evil.service",
            "units/evil%00.service",
            "units/evil%0a.service",
            "units/evil%ff.service",
            "rollouts/..%2Fevil.service",
            "machines/..%2Fevil",
        ] {
            let answers = ask(host, path)?;
            ensure!(!answers.contains(" 20"), "{path}: {answers}");
        }
        host.write_file("/etc/fleet/units/a.service", sleeper(1000))?;
        runs_everywhere(lab, "a.service", 1000)?;
        // The longest possible name.
        runs_everywhere(lab, &format!("{}.service", "x".repeat(247)), 1000)?;
        host.exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        host.fleetctl(&["list-units"])?.ok()?;
        let running = host.sh("pgrep -af '[s]leep 666' || true")?.stdout;
        ensure!(!running.contains("sleep 666"), "{running}");
        let files = evil_files(host)?;
        ensure!(files.trim().is_empty(), "{files}");
        Ok(())
    });
}

/// Returns the first lines of the answers to a change and to a read of that path, sent exactly as
/// given.
fn ask(host: &Host, path: &str) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let body = r#"{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 666"},{"section":"X-Fleet","name":"Global","value":"true"}]}"#;
    let mut first = String::new();
    for method in ["PUT", "POST", "DELETE"] {
        let socket = host.path("/run/fleet.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        write!(
            stream,
            "{method} /fleet/v1/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        first += String::from_utf8_lossy(&answer)
            .lines()
            .next()
            .unwrap_or_default();
        first.push('\n');
    }
    Ok(first)
}
