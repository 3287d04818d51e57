//! Shows that a client generated from the API's description can use it without other knowledge of
//! fleet.

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, repository, requirements, run};

use crate::support::looking::{SOON, gone_everywhere, listed, runs_everywhere};

#[test]
fn a_generated_client_creates_lists_changes_and_deletes_units() {
    if let Err(why) = requirements::installed(requirements::TESTS) {
        return requirements::skip(&format!("{why:#}"));
    }
    Lab::builder().etcd(1).test(|lab| {
        let socket = "/etc/systemd/system/fleet.socket.d/tcp.conf";
        lab.host(1)
            .write_file(socket, "[Socket]\nListenStream=49153\n")?;
        let environment = "/etc/systemd/system/fleet.service.d/tcp.conf";
        let allowed = "[Service]\nEnvironment=FLEET_INSECURE_TCP=true\n";
        lab.host(1).write_file(environment, allowed)?;
        listed(lab)?;
        client(lab, "create")?;
        runs_everywhere(lab, "a.service", 1000)?;
        lab.wait_until(SOON, "the unit is reported", || {
            let units = lab.host(1).fleetctl(&["list-units", "--no-legend"])?.ok()?;
            Ok(units.ends_with("\tactive\trunning\n"))
        })?;
        client(lab, "change")?;
        runs_everywhere(lab, "a.service", 2000)?;
        client(lab, "delete")?;
        gone_everywhere(lab, "a.service")?;
        let left = lab.host(1).sh("ls /run/fleet/units")?.ok()?;
        ensure!(left.is_empty(), "left: {left}");
        Ok(())
    });
}

/// Runs the client on this machine, with the network of the host.
fn client(lab: &Lab, what: &str) -> Result<()> {
    let script = repository().join("tests/access/api_client.py");
    let script = script.to_str().context("a path that is no text")?;
    let endpoint = format!("http://{}:49153", lab.host(1).address());
    let link = lab.host(1).link();
    link.inside(|| run(&["python3", script, &endpoint, what])?.ok())?;
    Ok(())
}
