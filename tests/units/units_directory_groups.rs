//! Shows that files that belong together reach the wanted states in whatever order they are copied,
//! and that an untrusted directory changes nothing.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{
    SOON, gone_everywhere, runs_everywhere, settled, sleeper, told, writes,
};

const DIRECTORY: &str = "/etc/fleet/units";

#[test]
fn a_group_of_files_ends_in_the_wanted_states() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        settled(lab)?;
        rolled_back(lab).context("a content that was rolled back")?;
        timers_and_their_services(lab).context("services beside what starts them")?;
        a_file_says_its_target(lab).context("Target=loaded")?;
        writable_by_others(lab).context("a directory that others may write to")
    });
}

#[test]
fn a_file_on_a_host_that_publishes_nothing_is_named() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|host| match host.number() {
            1 => lab.fleet_conf(),
            _ => lab.fleet_conf().line("disable_engine=true"),
        })?;
        put(lab.host(2), "web.service", &sleeper(1000))?;
        told(
            lab,
            "/etc/fleet/units/web.service: nothing happens: this machine has disable_engine=true",
            true,
        )?;
        settled(lab)?;
        ensure!(writes(lab, "web.service")?.is_none(), "it was published");
        lab.host(2)
            .sh(&format!("rm {DIRECTORY}/web.service"))?
            .ok()?;
        told(lab, DIRECTORY, false)
    });
}

#[test]
fn an_old_image_changes_nothing_and_is_named() {
    Lab::builder().hosts(2).etcd(1).test(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        settled(lab)?;
        let publisher = lab.host(1);
        // More contents than the registry keeps revisions.
        for number in 1000..1013 {
            put(publisher, "web.service", &sleeper(number))?;
            runs_everywhere(lab, "web.service", number)?;
        }
        put(publisher, "old.service", &sleeper(1020))?;
        runs_everywhere(lab, "old.service", 1020)?;
        publisher.sh(&format!("rm {DIRECTORY}/old.service"))?.ok()?;
        gone_everywhere(lab, "old.service")?;

        let image = lab.host(2);
        image
            .sh("systemctl stop fleet.service; rm -f /var/lib/fleet/directory.json")?
            .ok()?;
        put(image, "web.service", &sleeper(1000))?;
        put(image, "old.service", &sleeper(1020))?;
        put(image, "new.service", &sleeper(1030))?;
        image.sh("systemctl start fleet.service")?.ok()?;
        runs_everywhere(lab, "new.service", 1030)?;
        told(lab, "web.service: the registry has a newer revision", true)?;
        told(lab, "old.service: the unit was destroyed", true)?;
        settled(lab)?;
        ensure!(writes(lab, "old.service")?.is_none(), "it came back");
        runs_everywhere(lab, "web.service", 1012)
    });
}

fn put(host: &Host, name: &str, content: &str) -> Result<()> {
    host.write_file(&format!("{DIRECTORY}/{name}"), content)
}

/// Returns a oneshot that writes a line for each run.
fn job(name: &str) -> String {
    format!(
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo run >> /srv/{name}'\n[X-Fleet]\nGlobal=true\n"
    )
}

fn rolled_back(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    put(host, "web.service", &sleeper(1050))?;
    runs_everywhere(lab, "web.service", 1050)?;
    // Only a revision that was available, here after a second, can be restored.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let bad = "[Service]\nExecStart=/bin/false\n[X-Fleet]\nGlobal=true\n";
    put(host, "web.service", bad)?;
    told(lab, "web.service: the registry has another content", true)?;
    put(host, "web.service", &sleeper(1051))?;
    runs_everywhere(lab, "web.service", 1051)?;
    told(lab, DIRECTORY, false)
}

fn timers_and_their_services(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    let rest = "[X-Fleet]\nGlobal=true\n";
    let timer = "[Timer]\nOnCalendar=yearly\n";
    for (name, content) in [
        ("weekly.timer", format!("{timer}{rest}")),
        ("weekly.service", job("weekly")),
        (
            "backup.timer",
            format!("{timer}Unit=nightly.service\n{rest}"),
        ),
        ("nightly.service", job("nightly")),
        (
            "watch.path",
            format!("[Path]\nPathExists=/srv/never\n{rest}"),
        ),
        ("watch.service", job("watch")),
        (
            "echo.socket",
            format!("[Socket]\nListenStream=/run/echo\nService=answer.service\n{rest}"),
        ),
        ("answer.service", job("answer")),
    ] {
        host.write_file(&format!("/root/group/{name}"), content)?;
    }
    host.sh(&format!("cp /root/group/* {DIRECTORY}/"))?.ok()?;
    for unit in ["weekly.timer", "backup.timer", "watch.path", "echo.socket"] {
        lab.wait_until(SOON, &format!("{unit} is active everywhere"), || {
            Ok(lab.hosts().iter().all(|host| host.is_active(unit)))
        })?;
    }
    for service in [
        "weekly.service",
        "nightly.service",
        "watch.service",
        "answer.service",
    ] {
        lab.wait_until(SOON, &format!("{service} is loaded everywhere"), || {
            lab.hosts().iter().try_fold(true, |all, host| {
                Ok(all && host.systemctl_show(service, "LoadState")? == "loaded")
            })
        })?;
    }
    // Neither an edit nor another fleetd runs the job.
    host.sh(&format!("echo '# edited' >> {DIRECTORY}/weekly.service"))?
        .ok()?;
    settled(lab)?;
    host.exec(&["systemctl", "restart", "fleet.service"])?
        .ok()?;
    settled(lab)?;
    for host in lab.hosts() {
        let ran = host.sh("ls /srv")?.ok()?;
        ensure!(ran.is_empty(), "ran on {}: {ran}", host.name());
    }
    let listed = host
        .fleetctl(&["list-unit-files", "--no-legend", "--fields=unit,dstate"])?
        .ok()?;
    ensure!(listed.contains("weekly.service\tloaded"), "{listed}");
    ensure!(listed.contains("weekly.timer\tlaunched"), "{listed}");
    told(lab, DIRECTORY, false)
}

fn a_file_says_its_target(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    put(host, "spare.service", &(job("spare") + "Target=loaded\n"))?;
    lab.wait_until(SOON, "spare.service is loaded everywhere", || {
        lab.hosts().iter().try_fold(true, |all, host| {
            Ok(all && host.systemctl_show("spare.service", "LoadState")? == "loaded")
        })
    })?;
    settled(lab)?;
    ensure!(!host.path("/srv/spare").exists(), "it ran");
    Ok(())
}

fn writable_by_others(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    host.sh(&format!("chmod 777 {DIRECTORY}"))?.ok()?;
    put(host, "planted.service", &sleeper(1040))?;
    told(
        lab,
        "/etc/fleet/units: is not read: /etc/fleet/units has mode 0777",
        true,
    )?;
    settled(lab)?;
    ensure!(
        writes(lab, "planted.service")?.is_none(),
        "it was published"
    );
    host.sh(&format!(
        "chmod 755 {DIRECTORY}; chmod 666 {DIRECTORY}/planted.service"
    ))?
    .ok()?;
    told(lab, "planted.service has mode 0666", true)?;
    host.sh(&format!("chmod 644 {DIRECTORY}/planted.service"))?
        .ok()?;
    runs_everywhere(lab, "planted.service", 1040)
}
