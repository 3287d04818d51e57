//! Shows that a template is a unit file on every machine: systemd makes instances from it.

use anyhow::ensure;
use lab::Lab;

use crate::support::looking::{SOON, listed, refused};

const NOTIFY: &str = "[Service]\nType=oneshot\n\
    ExecStart=/bin/sh -c 'echo %i 1 >> /srv/told'\n[X-Fleet]\nGlobal=true\n";
const FAILS: &str = "[Unit]\nOnFailure=notify@%n.service\n\
    [Service]\nType=oneshot\nExecStart=/bin/false\n[X-Fleet]\nGlobal=true\n";

#[test]
fn instances_are_made_from_a_loaded_template() {
    Lab::builder().hosts(1).etcd(1).test_on_all_suites(|lab| {
        listed(lab)?;
        let host = lab.host(1);
        let fleetctl = |arguments: &[&str]| host.fleetctl(arguments);
        let ok = |arguments: &[&str]| fleetctl(arguments)?.ok();
        host.write_file("/root/notify@.service", NOTIFY)?;
        host.write_file("/root/x.service", FAILS)?;

        // Nothing has put the template there, and systemd has looked for it once.
        ok(&["submit", "/root/notify@.service"])?;
        let started = fleetctl(&["start", "/root/x.service"])?;
        let note = "needs the template notify@.service";
        ensure!(started.stderr.contains(note), "{started:?}");
        let failed = || Ok(host.systemctl_show("x.service", "ActiveState")? == "failed");
        lab.wait_until(SOON, "x.service has failed", failed)?;

        let refusal = "cannot activate template \"notify@.service\"";
        refused(&fleetctl(&["start", "notify@.service"])?, 1, refusal)?;
        ok(&["load", "notify@.service"])?;
        let told = |lines: &str| {
            lab.wait_until(SOON, &format!("/srv/told has {lines:?}"), || {
                Ok(host.read_file("/srv/told").is_ok_and(|told| told == lines))
            })
        };
        let file = host.path("/run/fleet/units/notify@.service");
        lab.wait_until(SOON, "the template is there", || {
            Ok(host.systemctl_show("notify@a.service", "LoadState")? == "loaded")
        })?;
        ok(&["restart", "x.service"])?;
        told("x.service 1\n")?;
        let noted = fleetctl(&["start", "--replace", "/root/x.service"])?;
        ensure!(!noted.stderr.contains(note), "{noted:?}");

        // A new revision is what systemd makes the next instance from.
        host.write_file("/root/notify@.service", NOTIFY.replace("%i 1", "%i 2"))?;
        ok(&["load", "--replace", "/root/notify@.service"])?;
        lab.wait_until(SOON, "the new file is there", || {
            Ok(std::fs::read_to_string(&file)?.contains("%i 2"))
        })?;
        ok(&["restart", "x.service"])?;
        told("x.service 1\nx.service 2\n")?;

        let listed = ok(&["list-unit-files", "--no-legend", "--fields=unit,dstate"])?;
        ensure!(listed.contains("notify@.service\tloaded\n"), "{listed}");
        let status = fleetctl(&["status", "notify@.service"])?;
        // As of any unit that is not active.
        let says = status.stdout.contains("Target: loaded") && status.stdout.contains("1 of 1");
        ensure!(status.code == 3 && says, "{status:?}");

        for verb in ["unload", "destroy"] {
            ok(&["load", "notify@.service"])?;
            lab.wait_until(SOON, "the template is there", || Ok(file.exists()))?;
            ok(&[verb, "notify@.service"])?;
            lab.wait_until(SOON, "the template is gone", || {
                let load = host.systemctl_show("notify@x.service.service", "LoadState")?;
                Ok(!file.exists() && load == "not-found")
            })?;
        }
        Ok(())
    });
}

#[test]
fn template_in_a_units_directory_is_on_machines() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        listed(lab)?;
        let host = lab.host(1);
        host.write_file("/etc/fleet/units/notify@.service", NOTIFY)?;
        host.write_file("/etc/fleet/units/notify@b.service", NOTIFY)?;
        let loads = || Ok(host.systemctl_show("notify@a.service", "LoadState")? == "loaded");
        lab.wait_until(SOON, "the template is there", loads)?;
        host.sh("systemctl start notify@a.service")?.ok()?;
        lab.wait_until(SOON, "both instances have run", || {
            let told = host.read_file("/srv/told")?;
            Ok(["a 1", "b 1"].iter().all(|line| told.contains(line)))
        })?;
        std::fs::remove_file(host.path("/etc/fleet/units/notify@.service"))?;
        lab.wait_until(SOON, "the template is gone", || Ok(!loads()?))
    });
}
