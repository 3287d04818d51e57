//! Shows that the lab does what the other behaviours rely on: hosts are real, faults are real, and
//! nothing is left behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Lab, cleanup, requirements};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn three_hosts_boot_and_reach_each_other() {
    Lab::builder().hosts(3).test(|lab| {
        for host in lab.hosts() {
            assert_eq!(
                host.sh("readlink /proc/1/exe; hostname; cat /etc/machine-id")?
                    .ok()?,
                {
                    format!(
                        "/usr/lib/systemd/systemd\n{}\n{}\n",
                        host.name(),
                        host.machine_id()
                    )
                }
            );
            assert_eq!(
                host.systemctl_show("dbus.service", "ActiveState")?,
                "active"
            );
        }
        reaches(lab, "10.99.1.3").context("before")?;
        lab.host(3).partition()?;
        ensure!(
            reaches(lab, "10.99.1.3").is_err(),
            "a partitioned host still answers"
        );
        reaches(lab, "10.99.1.2").context("the others")?;
        lab.host(3).heal()?;
        lab.wait_until(SOON, "host 3 is back", || {
            Ok(reaches(lab, "10.99.1.3").is_ok())
        })
    });
}

/// Checks that host 1 can connect to a listener on the host with this address.
fn reaches(lab: &Lab, address: &str) -> Result<()> {
    // Nothing listens there: the other host's kernel refuses the connection, while a cut cable is
    // silent.
    lab.host(1).link().inside(|| {
        let address = format!("{address}:9").parse()?;
        match std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    })
}

#[test]
fn commands_and_files_are_those_of_the_host() {
    Lab::builder().test(|lab| {
        let host = lab.host(1);
        let failed = host.sh("echo out; echo err >&2; exit 7")?;
        assert_eq!(
            (failed.code, failed.stdout.as_str(), failed.stderr.as_str()),
            (7, "out\n", "err\n")
        );
        ensure!(
            failed
                .ok()
                .is_err_and(|error| error.to_string().contains("err"))
        );
        host.write_file("/srv/deep/file", "one\n")?;
        assert_eq!(host.exec(&["cat", "/srv/deep/file"])?.ok()?, "one\n");
        host.sh("echo two > /run/two")?.ok()?;
        assert_eq!(host.read_file("/run/two")?, "two\n");
        ensure!(host.read_file("/srv/nothing").is_err());
        host.write_file(
            "/etc/systemd/system/nap.service",
            "[Service]\nExecStart=/bin/sleep infinity\nRestart=always\nRestartSec=0\n",
        )?;
        host.sh("systemctl daemon-reload && systemctl start nap.service")?
            .ok()?;
        let before = host.main_pid("nap.service")?;
        host.kill_main("nap.service")?;
        lab.wait_until(SOON, "nap.service runs again", || {
            Ok(host.is_active("nap.service")
                && ![0, before].contains(&host.main_pid("nap.service")?))
        })
    });
}

#[test]
fn a_reboot_and_a_power_cut_keep_the_disk_and_nothing_of_run() {
    Lab::builder().test(|lab| {
        let host = lab.host(1);
        for (number, restart) in [(1, "reboot"), (2, "power cut")] {
            host.sh(&format!(
                "echo {number} > /srv/disk; echo {number} > /run/memory"
            ))?
            .ok()?;
            let pid = host.pid1()?;
            if restart == "reboot" {
                host.reboot()?;
            } else {
                host.power_off()?;
                ensure!(
                    host.exec(&["true"]).is_err(),
                    "a host that is off runs commands"
                );
                assert_eq!(host.read_file("/srv/disk")?, "2\n");
                host.power_on()?;
            }
            assert_ne!(host.pid1()?, pid, "{restart}");
            assert_eq!(
                host.read_file("/srv/disk")?,
                format!("{number}\n"),
                "{restart}"
            );
            ensure!(
                host.read_file("/run/memory").is_err(),
                "{restart} kept /run"
            );
        }
        let boots = host
            .sh("journalctl --list-boots | grep -cE [0-9a-f]{32}")?
            .ok()?;
        ensure!(boots.trim() == "3", "the journal knows {boots} boots");
        Ok(())
    });
}

#[test]
fn etcd_cluster_survives_a_killed_stalled_or_cut_off_member() {
    Lab::builder().hosts(0).etcd(3).test(|lab| {
        let put =
            |number: usize, value: &str| lab.member(number).etcdctl(&["put", "key", value])?.ok();
        let get = |number: usize| {
            lab.member(number)
                .etcdctl(&["get", "--print-value-only", "key"])?
                .ok()
        };
        put(1, "start")?;

        lab.member(3).kill()?;
        lab.wait_until(SOON, "two members accept writes", || {
            Ok(put(1, "killed").is_ok())
        })?;
        ensure!(
            lab.member(3).etcdctl(&["endpoint", "health"])?.code != 0,
            "a killed member is healthy"
        );
        lab.member(3).restart()?;
        assert_eq!(get(3)?, "killed\n");

        lab.member(2).pause()?;
        lab.wait_until(SOON, "two members accept writes", || {
            Ok(put(1, "stalled").is_ok())
        })?;
        ensure!(lab.member(2).metrics().is_err(), "a stalled member answers");
        lab.member(2).resume()?;
        lab.wait_until(SOON, "the stalled member caught up", || {
            Ok(get(2)? == "stalled\n")
        })?;

        lab.member(1).partition()?;
        lab.wait_until(SOON, "two members accept writes", || {
            Ok(put(2, "cut").is_ok())
        })?;
        ensure!(
            put(1, "alone").is_err(),
            "a member without a majority accepts writes"
        );
        lab.member(1).heal()?;
        lab.wait_until(SOON, "the member is back", || Ok(get(1)? == "cut\n"))?;

        let counted = || {
            Ok::<_, anyhow::Error>(
                lab.member(1)
                    .metrics()?
                    .sum("etcd_debugging_mvcc_put_total"),
            )
        };
        let before = counted()?;
        put(1, "counted")?;
        assert_eq!(counted()? - before, 1.0);
        Ok(())
    });
}

#[test]
fn a_wiped_etcd_starts_empty() {
    Lab::builder().hosts(0).etcd(1).test(|lab| {
        let etcd = lab.member(1);
        etcd.etcdctl(&["put", "key", "value"])?.ok()?;
        etcd.restart()?;
        assert_eq!(
            etcd.etcdctl(&["get", "--print-value-only", "key"])?.ok()?,
            "value\n"
        );
        etcd.wipe()?;
        etcd.restart()?;
        assert_eq!(
            etcd.etcdctl(&["get", "--print-value-only", "key"])?.ok()?,
            ""
        );
        Ok(())
    });
}

#[test]
fn a_lab_that_ends_leaves_nothing() {
    if let Err(why) = requirements::requirements() {
        return requirements::skip(&format!("{why:#}"));
    }
    let lab = Lab::builder().hosts(2).etcd(1).start().expect("a lab");
    let id = lab.id().to_owned();
    let traces = cleanup::traces(&id).expect("traces");
    for kind in [
        "mount ",
        "cgroup ",
        "process ",
        &format!("fleet-{id}-net"),
        &id,
    ] {
        assert!(
            traces.iter().any(|trace| trace.starts_with(kind)),
            "no {kind} in {traces:#?}"
        );
    }
    cleanup::sweep().expect("sweep");
    assert!(
        lab.host(1).exec(&["true"]).is_ok(),
        "a sweep took a lab that is in use"
    );
    drop(lab);
    assert_eq!(cleanup::traces(&id).expect("traces"), [""; 0]);
}

#[test]
fn a_lab_whose_process_was_killed_is_removed_by_the_next_start() {
    if let Err(why) = requirements::requirements() {
        return requirements::skip(&format!("{why:#}"));
    }
    let mut owner = Command::new(std::env::current_exe().expect("this test binary"))
        .args(["--exact", "waits_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test binary again");
    let said = BufReader::new(owner.stdout.take().expect("a pipe")).lines();
    let id = said
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("lab id ")?.1.to_owned()));
    owner.kill().expect("kill");
    owner.wait().expect("wait");
    let id = id.expect("the other process says its lab's id");

    assert_ne!(cleanup::traces(&id).expect("traces"), [""; 0]);
    cleanup::sweep().expect("sweep");
    assert_eq!(cleanup::traces(&id).expect("traces"), [""; 0]);
}

#[test]
#[ignore = "the other half of a_lab_whose_process_was_killed_is_removed_by_the_next_start"]
fn waits_to_be_killed() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        println!("lab id {}", lab.id());
        std::thread::sleep(SOON);
        Ok(())
    });
}

#[test]
fn hosts_of_one_lab_run_the_releases_they_were_given() {
    Lab::builder().hosts(2).suite_of(2, "trixie").test(|lab| {
        let release = |number| {
            let host = lab.host(number);
            let script = ". /etc/os-release; printf %s $VERSION_CODENAME";
            anyhow::Ok((host.suite(), host.sh(script)?.ok()?))
        };
        let (own, found) = release(1)?;
        ensure!(own == found, "host 1 runs {found} rather than {own}");
        assert_eq!(release(2)?, ("trixie", "trixie".to_owned()));
        reaches(lab, "10.99.1.2")
    });
}

#[test]
fn hosts_with_podman_run_images_of_the_labs_registry() {
    let builder = Lab::builder().hosts(2).suite_of(2, "trixie").podman();
    builder.test(|lab| {
        let nginx = "docker run --detach --name web --publish 8000:80 nginx";
        for host in lab.hosts() {
            host.sh(nginx)?.ok()?;
            let said = host.sh("docker run --rm busybox echo hello")?.ok()?;
            assert_eq!(said, "hello\n", "on {}", host.name());
        }
        let page = |host: &lab::Host| {
            let other = lab.host(3 - host.number());
            other
                .sh(&format!("curl --silent http://{}:8000", host.address()))?
                .ok()
        };
        for host in lab.hosts() {
            lab.wait_until(SOON, "the container answers the other host", || {
                Ok(page(host)? == "<h1>Welcome to nginx!</h1>\n")
            })?;
        }
        let missing = lab.host(1).sh("docker pull nothing")?;
        ensure!(
            missing.code != 0 && missing.stderr.contains("manifest unknown"),
            "{missing:?}"
        );
        Ok(())
    });
}
