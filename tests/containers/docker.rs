//! Shows that a unit for docker, as the manual of fleet 1.0 has it, runs a container on every
//! machine.

use anyhow::ensure;
use lab::Lab;

use super::{MACHINES, SOON, commands, end_of_rollout, fleetctl, on_three_hosts};

const HELLO: &str = include_str!("hello.service");

#[test]
fn the_docker_unit_runs_on_every_machine_and_updates() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        one.write_file("/root/hello.service", HELLO)?;
        fleetctl(lab, "start hello.service")?.ok()?;
        let rows = MACHINES.map(|machine| format!("hello.service\t{machine}\tactive\trunning\n"));
        lab.wait_until(SOON, "three rows are active", || {
            let listed = fleetctl(lab, "list-units --no-legend")?.ok()?;
            ensure!(listed == rows.concat(), "{listed}");
            Ok(true)
        })?;
        ensure!(fleetctl(lab, "cat hello.service")?.ok()? == HELLO);
        runs(lab, "Hello World")?;
        lab.wait_until(SOON, "the journals of all machines say it", || {
            let journal = fleetctl(lab, "journal --lines=20 hello.service")?.ok()?;
            let says = |machine| {
                let mut lines = journal.lines();
                lines.any(|line| line.starts_with(machine) && line.ends_with(": Hello World"))
            };
            ensure!(MACHINES.into_iter().all(says), "{journal}");
            Ok(true)
        })?;

        fleetctl(lab, "wait hello.service")?.ok()?;
        let changed = HELLO.replace("Hello World", "Hello Fleet");
        one.write_file("/root/hello.service", &changed)?;
        fleetctl(lab, "start --replace hello.service")?.ok()?;
        end_of_rollout(lab, "hello.service")?.ok()?;
        runs(lab, "Hello Fleet")?;
        let events = fleetctl(lab, "events hello.service")?.ok()?;
        let granted = |machine: &str| {
            let machine = &machine[..11];
            events.contains(&format!(
                "revision 2 on {machine}: 0 of 3 machines unavailable"
            ))
        };
        ensure!(
            MACHINES.into_iter().all(granted),
            "not one by one:\n{events}"
        );

        let missing = changed.replace("busybox /bin/sh", "nosuchimage /bin/sh");
        one.write_file("/root/hello.service", missing)?;
        fleetctl(lab, "start --replace hello.service")?.ok()?;
        let ended = end_of_rollout(lab, "hello.service")?;
        ensure!(ended.code == 7, "{ended:?}");
        runs(lab, "Hello Fleet")?;
        let status = fleetctl(lab, "status hello.service")?.stdout;
        ensure!(status.contains("revision 3 rolled back"), "{status}");
        Ok(())
    });
}

/// Waits until the container of every host runs the loop that says this.
fn runs(lab: &Lab, said: &str) -> anyhow::Result<()> {
    let line = format!(
        "busybox1: /bin/sh -c trap 'exit 0' INT TERM; while true; do echo {said}; sleep 1; done\n"
    );
    lab.wait_until(SOON, &format!("all containers say {said}"), || {
        for host in lab.hosts() {
            let found = commands(host)?;
            ensure!(found == line, "{}: {found}", host.name());
        }
        Ok(true)
    })
}
